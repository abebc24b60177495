// A certified OpenID provider: node provider.mjs '{"secret": …, "redirect": …, "port": …}' (0: any). It prints its port.
// Whoever signs in as NAME has the address NAME@acme.example, verified, and is in the groups "vpn" and NAME. Its keys are
// new at each start. For tests alone: GET /test/disable?NAME closes an account, /test/groups?NAME empties its groups.
import crypto from "node:crypto";
import http from "node:http";
import { Provider } from "oidc-provider";

const said = JSON.parse(process.argv[2]);
const { privateKey } = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...privateKey.export({ format: "jwk" }), kid: crypto.randomUUID(), alg: "RS256", use: "sig" };
const disabled = new Set();
const outOfGroups = new Set();

function account(name) {
  if (disabled.has(name)) return undefined;
  return {
    accountId: name,
    claims: () => ({
      sub: name,
      email: `${name}@acme.example`,
      email_verified: true,
      groups: outOfGroups.has(name) ? [] : ["vpn", name],
    }),
  };
}

function told(request, answer) {
  const { pathname, search } = new URL(request.url, "http://localhost");
  if (pathname === "/test/disable") disabled.add(search.slice(1));
  else if (pathname === "/test/groups") outOfGroups.add(search.slice(1));
  else return false;
  answer.end();
  return true;
}

const server = http.createServer();
server.listen(said.port, "127.0.0.1", () => {
  const { port } = server.address();
  const provider = new Provider(`http://localhost:${port}`, {
    clients: [
      {
        client_id: "vpn",
        client_secret: said.secret,
        redirect_uris: [said.redirect],
        response_types: ["code"],
        grant_types: ["authorization_code", "refresh_token"],
      },
    ],
    jwks: { keys: [key] },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["groups"] },
    conformIdTokenClaims: false,
    cookies: { keys: [said.secret] },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    findAccount: (context, name) => account(name),
  });
  const answer = provider.callback();
  server.on("request", (request, response) => told(request, response) || answer(request, response));
  console.log(port);
});
