/** The gateway's page in a real browser. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { createHash } from "node:crypto"
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

const sizes = { wide: 1_680, desktop: 1_120, tablet: 768, phone: 390 } as const

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

  it.live("shows keys and caps by their names, with what is spent and reserved apart, and the last hour", () =>
    Effect.gen(function* () {
      const folder = process.env["FLOODGATE_PICTURES"]
      let calls = 0
      const upstream = yield* serve((_, response) => {
        calls++
        // The first call is rejected, and the last one never ends.
        if (calls === 1) response.writeHead(429, { "retry-after": "0" }).end("{}")
        else if (calls < 12) response.writeHead(200, { "content-type": "application/json" }).end(completion)
      })
      const keyed = (name: string) => ({ name, sha256: createHash("sha256").update(`fg-${name}`).digest("hex") })
      const context = yield* Layer.build(
        Governor.layer({ prices: { "gpt-6": { input: 1_000, output: 10_000, maxOutput: 100 } } }).pipe(
          Layer.provideMerge(Budget.layer({ limits: { requests: { perMinute: 600 }, tokens: { perMinute: 90_000 } } })),
          Layer.provideMerge(Gateway.layerEvents),
          Layer.provideMerge(Logger.layer([]))
        )
      )
      const { url } = yield* Gateway.make({
        upstreams: { openai: upstream.url },
        keys: [keyed("search"), keyed("a-team-with-quite-a-long-name-for-its-key")],
        credentials: { openai: Redacted.make("sk-provider") },
        rules: [
          { name: "search", key: "search", cap: { dollars: 12, per: "day" } },
          { name: "everybody", cap: { dollars: 200, per: "day" } }
        ],
        drain: "20 millis"
      }).pipe(Effect.provideContext(context))
      const ask = (key: string, init: RequestInit = {}, content = "Hello") =>
        fetch(`${url}/v1/chat/completions`, {
          ...init,
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer fg-${key}` },
          body: JSON.stringify({ model: "gpt-6", max_tokens: 100, messages: [{ role: "user", content }] })
        })
      const controller = new AbortController()
      yield* Effect.addFinalizer(() => Effect.sync(() => controller.abort()))
      yield* Effect.promise(async () => {
        for (let n = 0; n < 8; n++) await (await ask("search")).text()
        for (let n = 0; n < 2; n++) await (await ask("a-team-with-quite-a-long-name-for-its-key")).text()
        ask("search", { signal: controller.signal }).catch(() => {})
        // Costs more than is left.
        await (await ask("search", {}, "Hello".repeat(1_000))).text()
      })
      const browser = yield* chromiumHere
      yield* Effect.promise(async () => {
        for (const [size, width] of Object.entries(sizes)) {
          for (const scheme of ["light", "dark"] as const) {
            const { errors, page } = await opened(browser, `${url}/floodgate/`, width, scheme)
            await page.locator("#keys td", { hasText: "search" }).first().waitFor()
            const caps = page.locator("#caps .level")
            await page
              .getByText(/\$9\.\d\d of \$12\.00 spent \(80 %\), \$\d\.\d\d reserved by running calls, \$\d\.\d\d free/)
              .waitFor()
            assert.include(await caps.first().innerText(), "search")
            assert.strictEqual(await caps.first().locator(".bar i").count(), 2)
            assert.match(await page.locator("#pools h3").first().innerText(), /^all models openai at 127\.0\.0\.1/)
            const hour = await page.locator("#hour").innerText()
            assert.match(hour, /9\.3K tokens/)
            assert.match(hour, /1 rejected with 429/)
            const concluded = page.locator("#events td", { hasText: "search: reached, " })
            const isCut = await concluded.evaluate(({ clientWidth, scrollWidth }) => scrollWidth > clientWidth)
            assert.isFalse(isCut, "what an event concluded is cut off")
            assert.isAbove(await page.locator("#hour rect").count(), 1)
            await fits(page)
            if (folder !== undefined)
              await page.screenshot({ path: `${folder}/page-${size}-${scheme}.png`, fullPage: true })
            assert.deepStrictEqual(errors, [])
            assert.notMatch(await page.locator("body").innerText(), /fg-|sk-|[\da-f]{32}/)
            await page.close()
          }
        }
      })
    })
  )

  it.live("shows what callers name themselves as text, never as HTML", () =>
    Effect.gen(function* () {
      const { browser, url } = yield* world()
      const name = "<img src=x onerror=\"document.title='taken'\">"
      yield* Effect.promise(async () => {
        const body = JSON.stringify({ model: name, messages: [] })
        const headers = { "x-floodgate-agent": name }
        const answer = await fetch(new URL("/v1/chat/completions", url), { method: "POST", headers, body })
        await answer.text()
        const { page, requests } = await opened(browser, url, sizes.desktop, "light")
        await shows(page)
        await page.locator("#agents td").getByText(name, { exact: true }).waitFor()
        assert.strictEqual(await page.locator("main img").count(), 0)
        assert.strictEqual(await page.title(), "Floodgate")
        const paths = new Set(requests.map((request) => new URL(request.url()).pathname.replace("/floodgate/", "")))
        assert.sameMembers([...paths], ["", "page.css", "page.js", "events"])
      })
    })
  )

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

  const requestsToken = "who-calls-what-and-when"

  it.live("shows the last requests as they end, to those who have the token for them, on a phone and on a desk", () =>
    Effect.gen(function* () {
      const folder = process.env["FLOODGATE_PICTURES"]
      const upstream = yield* serve((_, response, body) => {
        if (body.includes("stuck"))
          return response.writeHead(200, { "content-type": "text/event-stream" }).write("data: {}\n\n")
        return response.writeHead(200, { "content-type": "application/json" }).end(completion)
      })
      const here = yield* gatewayTo(upstream.url, {
        requestsToken,
        rules: [{ agent: "spender", cap: { dollars: 1e-6 } }],
        places: { "claude-sonnet-5": [{ upstream: "openai", name: "here" }] }
      })
      const ask = async (agent: string, model = "claude-sonnet-5") => {
        const body = JSON.stringify({ model, max_tokens: 100, messages: [{ role: "user", content: "MARK" }] })
        const headers = {
          "x-floodgate-agent": agent,
          authorization: "Bearer sk-one",
          "content-type": "application/json"
        }
        await (await fetch(`${here.url}/v1/chat/completions`, { method: "POST", headers, body })).text()
      }
      const browser = yield* chromiumHere
      yield* Effect.promise(async () => {
        for (const [size, width] of Object.entries({ narrow: 360, wide: 1_440 })) {
          for (const scheme of ["light", "dark"] as const) {
            const { errors, page, requests } = await opened(browser, `${here.url}/floodgate/`, width, scheme)
            const rows = page.locator("#requests tbody tr")
            await page.getByLabel("Enter the token for the list of requests").fill("not-the-token-of-it")
            await page.getByText("Show the requests").click()
            await page.getByText("The token is wrong. Try again.").waitFor()
            assert.strictEqual(await rows.count(), 0)
            if (folder !== undefined)
              await page.screenshot({ path: `${folder}/requests-closed-${size}-${scheme}.png`, fullPage: true })
            await page.getByLabel("Enter the token for the list of requests").fill(requestsToken)
            await page.keyboard.press("Enter")
            if (requests.length > 0 && size === "narrow" && scheme === "light")
              await page.getByText("No request has ended yet.").waitFor()
            await ask(`a-researcher-${size}-${scheme}`)
            await rows.filter({ hasText: `a-researcher-${size}-${scheme}` }).waitFor()
            await ask("spender")
            await rows.filter({ hasText: "refused 402, spendLimited" }).first().waitFor()
            await ask(`other-${size}-${scheme}`, "claude-opus-5-with-a-name-that-does-not-end")
            await rows.filter({ hasText: `other-${size}-${scheme}` }).waitFor()
            const [newest] = await rows.allInnerTexts()
            assert.match(newest!, /answered 200\tclaude-opus-5[^\t]*\tkey-[\da-f]{8}\tother-[a-z-]+\t0/)
            await fits(page)
            if (folder !== undefined)
              await page.screenshot({ path: `${folder}/requests-${size}-${scheme}.png`, fullPage: true })
            await page.getByLabel("Outcome").selectOption("refused")
            await page.getByText("answered 200").first().waitFor({ state: "detached" })
            assert.isTrue((await rows.allInnerTexts()).every((row) => row.includes("refused 402")))
            await page.getByLabel("Model").fill("gpt")
            await page.getByText("None of the last 500 requests is like this.").waitFor()
            // The token is asked for once a tab, and is in no address.
            await page.reload()
            await rows.first().waitFor()
            for (const request of requests) assert.notInclude(request.url(), requestsToken)
            assert.notMatch(await page.locator("body").innerText(), /MARK|sk-one|who-calls/)
            assert.deepStrictEqual(errors, [])
            await page.close()
          }
        }
      })
    })
  )

  it.live("says how to see the last requests if the gateway does not remember them", () =>
    Effect.gen(function* () {
      const { browser, url } = yield* world()
      yield* Effect.promise(async () => {
        const { page, requests } = await opened(browser, url, 360, "light")
        await page.getByText(/^Off\. With a token of its own in FLOODGATE_GATEWAY_REQUESTS_TOKEN/).waitFor()
        assert.isFalse(await page.getByText("Show the requests").isVisible())
        await fits(page)
        assert.isFalse(requests.some((request) => request.url().includes("/requests")))
      })
    })
  )
})
