/**
 * What users' own tests stand on: no sockets, no sleeping, every nasty question one line.
 *
 * @since 0.1.0
 */
export * as TestAuthorizationServer from "./testing/TestAuthorizationServer.ts"
export * as TestTokenService from "./testing/TestTokenService.ts"
