/**
 * The tokens of the test server.
 *
 * All tokens that came of one grant are a family. A refresh token or a code that is used twice may be stolen, so it ends
 * its family (RFC 9700 §4.14.2).
 */
import { scopes } from "../../internal/scope.ts"

/** For which client something was issued, and what for. */
export interface Permission {
  readonly clientId: string
  readonly scope: string
  /** The thumbprint of the key that it is bound to. */
  readonly key?: string | undefined
}

export interface Token extends Permission {
  readonly family: number
}

/** Members of a token response that do not follow from the token. */
export interface Members {
  /** Defaults to the scope of the token. */
  readonly scope?: string
  readonly issued_token_type?: string
}

export interface TokensOptions {
  /** How long an access token lives, in milliseconds. */
  readonly lifetime: number
  readonly hasRefreshTokens: boolean
  /** The scopes that can be asked for; any if there is no list. */
  readonly scopes: ReadonlyArray<string> | undefined
}

export type Tokens = ReturnType<typeof makeTokens>

export const makeTokens = ({ hasRefreshTokens, lifetime, scopes: known }: TokensOptions) => {
  const accessTokens = new Map<string, Token & { readonly end: number }>()
  const refreshTokens = new Map<string, Token>()
  /** The refresh tokens and codes that were used, and the families of what they were used for. */
  const used = new Map<string, number>()
  let issued = 0
  let families = 0

  const endFamily = (family: number): void => {
    for (const tokens of [accessTokens, refreshTokens]) {
      for (const [name, token] of tokens) {
        if (token.family === family) tokens.delete(name)
      }
    }
  }

  return {
    /** How many access tokens were issued. */
    issued: (): number => issued,
    newFamily: (): number => ++families,
    knowsScope: (scope: string): boolean => known === undefined || scopes(scope).every((one) => known.includes(one)),

    /** Issues an access token, and a refresh token where there are any. Returns the members of the response. */
    issue: (token: Token, now: number, { scope = token.scope, ...others }: Members = {}) => {
      const id = ++issued
      accessTokens.set(`token-${id}`, { ...token, end: now + lifetime })
      if (hasRefreshTokens) refreshTokens.set(`refresh-${id}`, token)
      return {
        access_token: `token-${id}`,
        token_type: token.key === undefined ? "Bearer" : "DPoP",
        ...(Number.isFinite(lifetime) ? { expires_in: Math.floor(lifetime / 1000) } : {}),
        ...(scope === "" ? {} : { scope }),
        ...(hasRefreshTokens ? { refresh_token: `refresh-${id}` } : {}),
        ...others
      }
    },

    /** An access token that is still good. */
    accessToken: (name: string, now: number): Token | undefined => {
      const token = accessTokens.get(name)
      return token !== undefined && now < token.end ? token : undefined
    },

    /** A refresh token that is still good. */
    refreshToken: (name: string): Token | undefined => refreshTokens.get(name),

    /** A refresh token or a code serves once. */
    use: (name: string, family: number): void => {
      refreshTokens.delete(name)
      used.set(name, family)
    },

    /** Ends the family of a refresh token or a code that was used before. */
    endIfUsed: (name: string): void => {
      const family = used.get(name)
      if (family !== undefined) endFamily(family)
    },

    /** A client revokes its own tokens, and with a refresh token all that came of it (RFC 7009 §2.1). */
    revoke: (name: string, clientId: string): void => {
      if (accessTokens.get(name)?.clientId === clientId) accessTokens.delete(name)
      const refreshToken = refreshTokens.get(name)
      if (refreshToken?.clientId === clientId) endFamily(refreshToken.family)
    },

    revokeAccessTokens: (): void => accessTokens.clear()
  }
}
