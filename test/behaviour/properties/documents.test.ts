/** Whatever a server publishes about itself or about an API: a value or a typed error, and nothing secret in it. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, FastCheck as fc, Option, Redacted } from "effect"
import { AuthorizationServer, ClientRegistration, Grant, ProtectedResource, TokenError } from "effect-alf"
import { scripted } from "../../support/scriptedClient.ts"

const resource = "https://api.test/mcp"
const issuer = "https://auth.test"

const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.webUrl({ withQueryParameters: true, withFragments: true }),
  fc.constantFrom(
    "",
    " ",
    "javascript:alert(1)",
    "http://user:hunter2@localhost/",
    "https://user:hunter2@auth.test/",
    "file:///etc/passwd",
    "https://auth.test:99999/",
    "https://[::1",
    "//auth.test",
    "\ud800",
    "https://auth.test/\u0000",
    `${issuer}/token?key=hunter2`,
    "a".repeat(20_000)
  )
)
const value = fc.oneof({ weight: 3, arbitrary: text }, { weight: 1, arbitrary: fc.array(text) }, fc.jsonValue())

/** A document with the right members, of which some are replaced. */
const documentOf = (usual: Readonly<Record<string, unknown>>, names: ReadonlyArray<string>) =>
  fc.tuple(fc.dictionary(fc.constantFrom(...names, "__proto__", "constructor", "toString"), value), fc.jsonValue()).map(
    ([members, other]) => ({ usual: JSON.stringify({ ...usual, ...members }), other: JSON.stringify(other) })
  ).chain(({ other, usual }) => fc.oneof({ weight: 9, arbitrary: fc.constant(usual) }, fc.constant(other)))

const serverDocument = documentOf({
  issuer,
  token_endpoint: `${issuer}/token`,
  registration_endpoint: `${issuer}/register?key=hunter3`
}, [
  "token_endpoint",
  "registration_endpoint",
  "revocation_endpoint",
  "mtls_endpoint_aliases",
  "scopes_supported",
  "token_endpoint_auth_methods_supported",
  "client_id_metadata_document_supported"
])

const apiDocument = documentOf({ resource, authorization_servers: [issuer] }, [
  "resource",
  "authorization_servers",
  "scopes_supported",
  "dpop_bound_access_tokens_required"
])

const registration = documentOf({ client_id: "client", client_secret: "hunter3-secret" }, [
  "client_id",
  "client_secret",
  "client_secret_expires_at",
  "token_endpoint_auth_method",
  "error",
  "error_description"
])

const challenge = fc.oneof(
  fc.string({ unit: "grapheme-ascii" }),
  text.map((url) => `Bearer resource_metadata="${url.replace(/[^\x20-\x7e]/g, "")}", scope="a b"`)
)

/** What servers say of an error is shown, but for secrets: those have a mark of their own. */
const assertTyped = (secret: string) => <A, E>(exit: Exit.Exit<A, E>) => {
  if (Exit.isSuccess(exit)) return
  const error = Option.getOrThrowWith(Cause.failureOption(exit.cause), () => new Error(Cause.pretty(exit.cause)))
  assert.isTrue(TokenError.isTokenError(error), Cause.pretty(exit.cause))
  assert.notInclude(`${JSON.stringify(error)}${String(error)}${Cause.pretty(exit.cause)}`, secret)
}

const world = (documents: { readonly server: string; readonly api: string; readonly client: string }, header: string) =>
  scripted(({ body, headers, url }) => {
    if (url.includes("oauth-protected-resource")) return new Response(documents.api)
    if (url.includes("/.well-known/")) return new Response(documents.server)
    if (body.startsWith("{")) return new Response(documents.client, { status: 201 })
    if (url.startsWith(resource)) {
      return headers["authorization"] === undefined
        ? new Response("", { status: 401, headers: { "www-authenticate": header } })
        : new Response("fine")
    }
    return Response.json({ access_token: "token", token_type: "Bearer", expires_in: 3600 })
  })

describe("documents of servers", () => {
  it.effect.prop("of an authorization server", { document: serverDocument }, ({ document }) =>
    Effect.map(
      Effect.exit(Effect.provide(AuthorizationServer.discover(issuer), scripted(() => new Response(document)).layer)),
      assertTyped("hunter2")
    ), { fastCheck: { numRuns: 300 } })

  it.effect.prop("of an API", { document: apiDocument, challenge }, ({ challenge, document }) =>
    Effect.map(
      Effect.exit(
        Effect.provide(
          ProtectedResource.discover(resource, { challenge }),
          scripted(() => new Response(document)).layer
        )
      ),
      assertTyped("hunter2")
    ), { fastCheck: { numRuns: 300 } })

  const usualServer = fc.constant({
    issuer,
    token_endpoint: `${issuer}/token`,
    registration_endpoint: `${issuer}/register?key=hunter3`
  }).map((document) => JSON.stringify(document))
  const usualApi = fc.constant(JSON.stringify({ resource, authorization_servers: [issuer] }))

  for (
    const [name, api, server] of [
      ["of a registration endpoint", usualApi, usualServer],
      ["all along the way to a token", apiDocument, serverDocument]
    ] as const
  ) {
    it.scoped.prop(
      name,
      { api, server, client: registration, challenge },
      ({ api, challenge, client, server }) =>
        Effect.gen(function*() {
          const http = world({ api, client, server }, challenge)
          const clients = yield* Effect.provide(
            ProtectedResource.make({
              resource,
              grant: Grant.clientCredentials(),
              client: ClientRegistration.dynamic({
                clientName: "Reports",
                initialAccessToken: Redacted.make("initial-hunter3")
              }),
              tokenRetry: { times: 0 }
            }),
            http.layer
          )
          assertTyped("hunter3")(yield* Effect.exit(clients.authorizedHttpClient.get(resource)))
          assert.isBelow(http.requests.length, 50)
        }),
      { fastCheck: { numRuns: 300 } }
    )
  }
})
