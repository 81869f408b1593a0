/** The windows of an account and the calls that are parked until their reset, on the gateway's page in a real browser. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { chromium } from "playwright-core"
import { executablePath, skipped } from "../../../test/support/browser.ts"
import { message } from "../../../test/support/httpProvider.ts"
import { serve } from "../../../test/support/httpServer.ts"

const adminToken = "an-admin-token-of-this-test"

/** A gateway whose account has used its share of one window, and so many tickets. */
const world = Effect.fnUntraced(function* (count: number) {
  const unified = "anthropic-ratelimit-unified"
  const inHours = (hours: number) => String(Math.floor(Date.now() / 1_000) + 3_600 * hours)
  const upstream = yield* serve(
    (_, response) =>
      void response
        .writeHead(200, {
          "content-type": "application/json",
          [`${unified}-5h-utilization`]: "0.71",
          [`${unified}-5h-reset`]: inHours(2),
          [`${unified}-7d-utilization`]: "0.4",
          [`${unified}-7d-reset`]: inHours(90),
          [`${unified}-7d_sonnet-utilization`]: "0.2",
          [`${unified}-7d_sonnet-reset`]: inHours(90)
        })
        .end(JSON.stringify(message(25, 12, "claude-sonnet-5")))
  )
  const context = yield* Layer.build(
    Governor.layer({ windows: { "5h": { share: 0.7 }, "7d": { share: 0.9 } } }).pipe(
      Layer.provideMerge(Budget.layer()),
      Layer.provideMerge(Logger.layer([]))
    )
  )
  const { url } = yield* Gateway.make({
    upstreams: { anthropic: upstream.url },
    drain: "20 millis",
    maxHold: "1 second",
    adminToken
  }).pipe(Effect.provideContext(context))
  const ask = async (agent: string, more: Record<string, string> = {}) => {
    const response = await fetch(`${url}/v1/messages`, {
      method: "POST",
      headers: {
        authorization: "Bearer sk-ant-oat-test",
        "anthropic-version": "2023-06-01",
        "x-floodgate-agent": agent,
        ...more
      },
      body: JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [{ role: "user", content: "MARK" }] })
    })
    await response.text()
    return response.status
  }
  yield* Effect.promise(async () => {
    assert.strictEqual(await ask("reviewer"), 200)
    for (let n = 0; n < count; n++) assert.strictEqual(await ask(`reviewer-${n}`, { "x-floodgate-park": "1" }), 402)
  })
  const browser = yield* Effect.acquireRelease(
    Effect.promise(() => chromium.launch({ executablePath, args: ["--headless", "--no-sandbox", "--disable-gpu"] })),
    (browser) => Effect.promise(() => browser.close())
  )
  const opened = async (width: number, colorScheme: "light" | "dark") => {
    const page = await browser.newPage({ viewport: { width, height: 760 }, colorScheme })
    const errors: Array<string> = []
    page.on("pageerror", ({ message }) => errors.push(message))
    await page.goto(`${url}/floodgate/`)
    await page.locator("#tickets tbody tr").first().waitFor()
    return { page, errors }
  }
  return { url, opened }
})

describe.skipIf(skipped !== undefined)("the page of a gateway in front of a subscription", () => {
  it.live("shows the windows, what each share has left, and what is parked until when, and cancels it", () =>
    Effect.gen(function* () {
      const folder = process.env["FLOODGATE_PICTURES"]
      const { opened } = yield* world(4)
      yield* Effect.promise(async () => {
        for (const [size, width] of Object.entries({ narrow: 360, wide: 1_440 })) {
          for (const scheme of ["light", "dark"] as const) {
            const { errors, page } = await opened(width, scheme)
            const windows = await page.locator("#windows").innerText()
            assert.match(windows, /Account \S+/)
            assert.match(windows, /5h\s+71 % spent, 0 % left of the batches' share of 70 %, until /)
            assert.match(windows, /7d\s+40 % spent, 50 % left of the batches' share of 90 %, until /)
            assert.match(windows, /7d_sonnet \(sonnet\)\s+20 % spent, until /)
            assert.strictEqual(await page.locator("#windows .mark").count(), 2)
            assert.match(await page.locator("#tickets tbody tr").first().innerText(), /waiting\t.*\treviewer-0\t/)
            const { inner, scroll } = await page.evaluate<{ inner: number; scroll: number }>(
              "({ inner: innerWidth, scroll: document.documentElement.scrollWidth })"
            )
            assert.isAtMost(scroll, inner)
            if (folder !== undefined)
              await page.screenshot({ path: `${folder}/parked-${size}-${scheme}.png`, fullPage: true })
            assert.deepStrictEqual(errors, [])
            await page.close()
          }
        }
        const { page } = await opened(1_440, "light")
        const cancel = page.getByLabel("Cancel the call of reviewer-1", { exact: true })
        await cancel.click()
        await page.getByText("Enter the admin token of the gateway to cancel.").waitFor()
        await page.keyboard.type("not-the-token-of-it")
        await cancel.click()
        await page.getByText("The admin token is missing or wrong").waitFor()
        await page.getByLabel("Admin token, to cancel").fill(adminToken)
        await cancel.click()
        await page.locator("#tickets tr", { hasText: "cancelled" }).waitFor()
        assert.strictEqual(await page.locator("#tickets tr", { hasText: "waiting" }).count(), 3)
        await page.getByText("All of its key").first().click()
        await page.locator("#tickets tr", { hasText: "waiting" }).first().waitFor({ state: "detached" })
        assert.strictEqual(await page.locator("#tickets tr", { hasText: "cancelled" }).count(), 4)
        assert.notMatch(await page.locator("body").innerText(), /MARK|sk-ant/)
      })
    }).pipe(Effect.scoped)
  )

  it.live("shows the first of 1,000 tickets, and how many there are", () =>
    Effect.gen(function* () {
      const { opened, url } = yield* world(1_000)
      yield* Effect.promise(async () => {
        const { page } = await opened(360, "light")
        await page.getByText("The first of 1K.").waitFor()
        assert.strictEqual(await page.locator("#tickets tbody tr").count(), 50)
        const status = await (await fetch(`${url}/floodgate/status`)).text()
        assert.isBelow(status.length, 40_000)
      })
    }).pipe(Effect.scoped)
  )
})
