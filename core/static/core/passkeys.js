// Forms with data-passkey="create" or "get": the browser makes or shows a passkey, and its answer is sent in the form.
// data-options is where what it needs comes from; data-given has it already.
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

async function asked(form) {
  if (form.dataset.given) return JSON.parse(form.dataset.given);
  const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
  const response = await fetch(form.dataset.options, { method: "POST", headers: { "X-CSRFToken": token } });
  return response.json();
}

async function options(form) {
  const found = await asked(form);
  if (found.error) throw new Error(found.error);
  found.challenge = bytes(found.challenge);
  if (found.user) found.user.id = bytes(found.user.id);
  for (const list of [found.excludeCredentials, found.allowCredentials]) {
    for (const each of list ?? []) each.id = bytes(each.id);
  }
  return found;
}

function answer(credential) {
  const response = { clientDataJSON: text(credential.response.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  return JSON.stringify({
    id: credential.id,
    rawId: text(credential.rawId),
    type: credential.type,
    response,
    clientExtensionResults: {},
  });
}

async function ask(form) {
  const said = form.querySelector("[data-said]");
  said.textContent = "";
  said.hidden = true;
  try {
    if (!window.PublicKeyCredential) throw new Error("This browser knows no passkeys.");
    const publicKey = await options(form);
    const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
    form.querySelector("[name=answer]").value = answer(credential);
    form.submit();
  } catch (error) {
    const stopped = error.name === "NotAllowedError" ? "Nothing was chosen, or the browser gave up. Try again." : "";
    const there = error.name === "InvalidStateError" ? "This device has a passkey for you already." : "";
    said.textContent = stopped || there || error.message;
    said.hidden = false;
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset?.passkey) return;
  event.preventDefault();
  ask(event.target);
});
