/**
 * Whether what one caller has begun may be awaited by another. On Cloudflare Workers a request cannot wait for the work of
 * another one, and what a request has begun ends with it.
 */

const isWorkers = (): boolean => globalThis.navigator?.userAgent === "Cloudflare-Workers"

export const sharesFetches = (option?: boolean): boolean => option ?? !isWorkers()
