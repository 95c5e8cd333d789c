/** The version of the package, for the `User-Agent` of token requests. */
export const version = "0.2.0"
