/** The gateway's page in a real browser. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type Browser, chromium, type Page, type Request } from "playwright-core"
import { executablePath, skipped } from "../../../test/support/browser.ts"
import { gatewayTo } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"

const token = "0123456789abcdef"

const completion = JSON.stringify({
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 900, completion_tokens: 30 }
})

const chromiumHere = Effect.acquireRelease(
  Effect.promise(() => chromium.launch({ executablePath, args: ["--headless", "--no-sandbox", "--disable-gpu"] })),
  (browser) => Effect.promise(() => browser.close())
)

/** A gateway that has answered a call, and a browser. */
const world = Effect.fnUntraced(function* (given?: string) {
  const upstream = yield* serve(
    (_, response) => void response.writeHead(200, { "content-type": "application/json" }).end(completion)
  )
  const here = yield* gatewayTo(upstream.url, { token: given })
  yield* Effect.promise(async () => {
    const headers = {
      "x-floodgate-agent": "researcher",
      ...(given === undefined ? {} : { "x-floodgate-token": given })
    }
    const body = JSON.stringify({ model: "gpt-6", messages: [] })
    await (await fetch(`${here.url}/v1/chat/completions`, { method: "POST", headers, body })).text()
  })
  return { url: `${here.url}/floodgate/`, browser: yield* chromiumHere }
})

const sizes = { desktop: 1_120, phone: 390 } as const

const opened = async (browser: Browser, url: string, width: number, colorScheme: "light" | "dark") => {
  const page = await browser.newPage({ viewport: { width, height: 760 }, colorScheme })
  const requests: Array<Request> = []
  const errors: Array<string> = []
  page.on("request", (request) => requests.push(request)).on("pageerror", ({ message }) => errors.push(message))
  await page.goto(url)
  return { page, requests, errors }
}

/** Asserts that nothing is wider than the window. */
const fits = async (page: Page) => {
  const { inner, scroll } = await page.evaluate<{ inner: number; scroll: number }>(
    "({ inner: innerWidth, scroll: document.documentElement.scrollWidth })"
  )
  assert.isAtMost(scroll, inner)
}

const shows = (page: Page) => page.locator("#agents td", { hasText: "researcher" }).waitFor()

describe.skipIf(skipped !== undefined)("the page of a gateway", () => {
  it.live("is shown at once if no token is set", () =>
    Effect.gen(function* () {
      const { browser, url } = yield* world()
      yield* Effect.promise(async () => {
        const { errors, page } = await opened(browser, url, sizes.desktop, "light")
        await shows(page)
        assert.isFalse(await page.locator("#auth").isVisible())
        assert.deepStrictEqual(errors, [])
      })
    })
  )

  for (const [size, width] of Object.entries(sizes)) {
    for (const scheme of ["light", "dark"] as const) {
      it.live(`asks for the token, and puts it into no address: ${size}, ${scheme}`, () =>
        Effect.gen(function* () {
          const { browser, url } = yield* world(token)
          yield* Effect.promise(async () => {
            const { errors, page, requests } = await opened(browser, url, width, scheme)
            await page.getByLabel("Enter the token of this gateway").waitFor()
            assert.isFalse(await page.locator("#shown").isVisible())
            await fits(page)
            await page.keyboard.type("not-the-token-of-it")
            await page.keyboard.press("Enter")
            await page.getByText("The token is wrong. Try again.").waitFor()
            await page.keyboard.type(token)
            await page.keyboard.press("Enter")
            await shows(page)
            assert.isFalse(await page.locator("#auth").isVisible())
            await fits(page)
            // The page asks for it once a tab.
            await page.reload()
            await shows(page)
            for (const request of requests) {
              assert.notInclude(request.url(), token)
              assert.isUndefined((await request.allHeaders())["referer"])
            }
            assert.deepStrictEqual(errors, [])
          })
        })
      )
    }
  }

  it.live("is shown at an address with the token", () =>
    Effect.gen(function* () {
      const { browser, url } = yield* world(token)
      yield* Effect.promise(async () => {
        const { page } = await opened(
          browser,
          url.replace("/floodgate", `/token/${token}/floodgate`),
          sizes.desktop,
          "light"
        )
        await shows(page)
      })
    })
  )
})
