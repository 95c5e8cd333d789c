/**
 * OAuth 2.0 access tokens for Effect programs.
 *
 * @since 0.1.0
 */
export * as AccessToken from "./AccessToken.ts"
export * as Alf from "./Alf.ts"
export * as AuthorizationServer from "./AuthorizationServer.ts"
export * as AuthorizedHttpClient from "./AuthorizedHttpClient.ts"
export * as ClientAuthentication from "./ClientAuthentication.ts"
export * as ClientRegistration from "./ClientRegistration.ts"
export * as DeviceCodeGrant from "./DeviceCodeGrant.ts"
export * as Grant from "./Grant.ts"
export * as ProtectedResource from "./ProtectedResource.ts"
export * as TokenEndpoint from "./TokenEndpoint.ts"
export * as TokenError from "./TokenError.ts"
export * as TokenMetrics from "./TokenMetrics.ts"
export * as TokenPool from "./TokenPool.ts"
export * as TokenService from "./TokenService.ts"
export * as TokenStorage from "./TokenStorage.ts"
