/**
 * How a URL reaches the person who is to sign in.
 *
 * What is printed goes to the standard error, through Effect's `Console`: the standard output is the program's own.
 *
 * @since 0.1.0
 */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/**
 * Shows a person a page.
 *
 * @since 0.1.0
 * @category tags
 */
export class Browser extends Context.Tag("effect-alf/node/Browser")<Browser, {
  /**
   * Shows the page at a URL. It may return at once, or stay until the page is closed: the sign-in does not wait for it,
   * and interrupts it at its end.
   */
  readonly open: (url: URL) => Effect.Effect<void>
}>() {}

const print = (url: URL): Effect.Effect<void> => Console.error(`To sign in, open ${url}`)

/**
 * Opens the desktop's browser with the package `open`, and prints the URL for the case that none opens.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Browser> = Layer.succeed(Browser, {
  open: (url) =>
    Effect.zipRight(
      print(url),
      Effect.catchAll(
        // imported here, so that programs that only print the URL do without the package; with a handler of its failure
        // bundlers do without it too
        Effect.tryPromise(() =>
          import("open").then(({ default: open }) => open(url.toString()), (missing) => Promise.reject(missing))
        ),
        () => Console.error("No browser could be opened (is the package \"open\" installed?): open the URL yourself")
      )
    )
})

/**
 * Only prints the URL: for machines without a desktop, and for people who want to choose the browser.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerLog: Layer.Layer<Browser> = Layer.succeed(Browser, { open: print })
