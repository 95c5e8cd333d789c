/**
 * Access tokens that a person gets by signing in through a browser, for programs on Node.
 *
 * Needs `@effect/platform-node`; `Browser.layer` needs the package `open` too.
 *
 * @since 0.1.0
 */
// @ts-nocheck

export * as AuthorizationCodeGrant from "./node/AuthorizationCodeGrant.ts"
export * as Browser from "./node/Browser.ts"
export * as ImplicitGrant from "./node/ImplicitGrant.ts"
