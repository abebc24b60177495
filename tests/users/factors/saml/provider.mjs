// A SAML identity provider, of npm's samlp: node provider.mjs '{"key": PEM, "certificate": PEM, "acs": …}'. It prints its
// port; its metadata is at /metadata. Whoever signs in as NAME has the id "id-NAME", the address NAME@acme.example, and is
// in the groups "vpn" and NAME. With "signs": "response" it signs the whole answer, else the assertion. With "ours", our
// certificate, it takes signed requests only.
import http from "node:http";
import samlp from "samlp";

const said = JSON.parse(process.argv[2]);
const ISSUER = "urn:acme:id";
const WHO = `<!doctype html><title>Acme</title><form method="post"><label>Name <input name="login"></label>
<button>Sign in</button> <button name="cancel" value="1">Cancel</button></form>`;

// samlp calls it without "new".
function mapper(user) {
  const persistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
  return {
    getClaims: () => ({ mail: `${user.name}@acme.example`, groups: ["vpn", user.name] }),
    getNameIdentifier: () => ({ nameIdentifier: `id-${user.name}`, nameIdentifierFormat: persistent }),
  };
}
mapper.prototype.metadata = [];

const options = {
  issuer: ISSUER,
  cert: said.certificate,
  key: said.key,
  signAssertion: said.signs !== "response",
  signResponse: said.signs === "response",
  recipient: said.acs,
  destination: said.acs,
  lifetimeInSeconds: 300,
  profileMapper: mapper,
  signingCert: said.ours,
  redirectEndpointPath: "/sso",
  postEndpointPath: "/sso",
  getPostURL: (audience, request, incoming, done) => done(null, said.acs),
};

// What samlp takes from express.
function dress(request, response) {
  const { searchParams } = new URL(request.url, "http://localhost");
  Object.assign(request, { query: Object.fromEntries(searchParams), originalUrl: request.url, protocol: "http" });
  response.set = (name, value) => response.setHeader(name, value);
  response.send = (body, text) => response.end(String(text ?? body));
}

function body(request) {
  return new Promise((done) => {
    let all = "";
    request.on("data", (piece) => (all += piece));
    request.on("end", () => done(new URLSearchParams(all)));
  });
}

async function answer(request, response) {
  const wrong = (error) => {
    response.statusCode = 400;
    response.end(String(error));
  };
  dress(request, response);
  if (request.url === "/metadata") return samlp.metadata(options)(request, response);
  response.setHeader("Content-Type", "text/html");
  if (request.method === "GET") return response.end(WHO);
  const sent = await body(request);
  request.method = "GET"; // the request of ours stands in the address
  if (!sent.get("cancel")) {
    request.user = { name: sent.get("login") };
    return samlp.auth(options)(request, response, wrong);
  }
  samlp.parseRequest(request, options, (error, asked) => {
    if (error) return wrong(error);
    const error_ = { code: "urn:oasis:names:tc:SAML:2.0:status:Responder", description: "gave up" };
    const refusal = { ...options, error: error_, inResponseTo: asked.id, RelayState: request.query.RelayState };
    samlp.sendError({ ...refusal, getPostURL: (incoming, done) => done(null, said.acs) })(request, response, wrong);
  });
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => response.end(String(error)));
});
server.listen(said.port ?? 0, "127.0.0.1", () => console.log(server.address().port));
