import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { createHash } from "node:crypto"

/** What a person sees. */
export interface Page {
  readonly status: number
  readonly tone: "good" | "bad" | "plain"
  readonly title: string
  readonly text: string
  /** What somebody else wrote. */
  readonly detail?: string | undefined
  /** Whether the window closes itself, where the browser lets it. */
  readonly closes?: boolean | undefined
}

export const signedIn: Page = {
  status: 200,
  tone: "good",
  title: "Signed in",
  text: "You can close this window and go back to the program.",
  closes: true
}

export const refused = (detail: string): Page => ({
  status: 403,
  tone: "bad",
  title: "Sign-in refused",
  text: "The authorization server did not let you in. You can close this window; to try again, go back to the program.",
  detail
})

export const failed: Page = {
  status: 502,
  tone: "bad",
  title: "Sign-in failed",
  text:
    "The authorization server responded, but the program got no token. You can close this window; the program knows " +
    "what went wrong."
}

export const expired: Page = {
  status: 400,
  tone: "plain",
  title: "Sign-in expired",
  text:
    "Nothing waits for this response: the sign-in took too long, or was finished or started again in another window. " +
    "You can close this one; to sign in, go back to the program."
}

export const malformed: Page = {
  status: 400,
  tone: "plain",
  title: "Not understood",
  text: "A program waits here for the response to a sign-in, and this is not one."
}

export const tooLarge: Page = { ...malformed, status: 413 }

export const notFound: Page = { ...malformed, status: 404, title: "Not found" }

export const methodNotAllowed: Page = { ...malformed, status: 405, title: "Method not allowed" }

/** Shown until the response in the fragment has been handed over. */
const collecting: Page = { status: 200, tone: "plain", title: "Signing in", text: "One moment …" }

const style = `
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --ink: #1b1b1f; --good: #1a7f43; --bad: #b3261e }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16161a; --card: #222228; --ink: #f1f1f4; --good: #5fd38d; --bad: #ff8a80 }
}
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink);
  font: 1.125rem/1.5 system-ui, sans-serif }
main { box-sizing: border-box; width: min(34rem, 100% - 2rem); margin: 1rem; padding: 2rem; border-radius: .75rem;
  background: var(--card); border-top: .375rem solid currentcolor }
.good { border-color: var(--good) }
.bad { border-color: var(--bad) }
h1 { margin: 0 0 .5rem; font-size: 1.75rem; line-height: 1.2 }
p { margin: .5rem 0 0 }
#detail { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: 1rem }
#detail:empty { display: none }
`

/** What came in the URL is neither kept nor sent again. */
const tidying = "history.replaceState(null, \"\", location.pathname)"

/** Long enough to be read. */
const closing = "setTimeout(() => window.close(), 3000)"

/**
 * Hands the fragment over and shows what comes back. The fragment leaves the address bar and the history first, and
 * goes in a body: no URL that is kept anywhere holds a token.
 */
const handover = `
const show = (page) => {
  document.title = page.title
  document.querySelector("main").className = page.tone
  document.querySelector("h1").textContent = page.title
  document.querySelector("#text").textContent = page.text
  document.querySelector("#detail").textContent = page.detail ?? ""
  if (page.closes) ${closing}
}
const fragment = location.hash.slice(1)
${tidying}
fetch(location.pathname, {
  method: "POST",
  headers: { "content-type": "application/x-www-form-urlencoded" },
  body: fragment,
  credentials: "omit",
  cache: "no-store"
}).then((response) => response.json()).then(show, () => show(${JSON.stringify(expired)}))
`

const source = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

const headers = {
  "cache-control": "no-store",
  // a connection that is kept alive would outlive the sign-in
  "connection": "close",
  "content-security-policy": [
    "default-src 'none'",
    `style-src ${source(style)}`,
    `script-src ${[tidying, closing, handover].map(source).join(" ")}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ].join("; "),
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY"
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\"": "&quot;",
  "'": "&#39;"
}

const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => entities[character] ?? "")

// the empty icon keeps browsers from asking for one
const render = (page: Page, extra: string): string =>
  `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(page.title)}</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
<main class="${page.tone}">
<div role="status">
<h1>${escape(page.title)}</h1>
<p id="text">${escape(page.text)}</p>
<p id="detail" dir="auto">${escape(page.detail ?? "")}</p>
</div>
${extra}</main>
</body>
</html>
`

const html = (page: Page, extra: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(render(page, extra), {
    status: page.status,
    contentType: "text/html; charset=utf-8",
    headers
  })

const script = (text: string): string => `<script>${text}</script>\n`

/** A page for a window. */
export const toHtml = (page: Page): HttpServerResponse.HttpServerResponse =>
  html(page, script(tidying) + (page.closes === true ? script(closing) : ""))

/** A page for the script of `handoverPage`. */
export const toJson = (page: Page): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.unsafeJson(page, { status: page.status, headers })

/** The page that posts its own fragment. */
export const handoverPage: HttpServerResponse.HttpServerResponse = html(
  collecting,
  `<noscript><p>This page needs JavaScript to finish the sign-in.</p></noscript>\n${script(handover)}`
)
