import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Gateway from "@floodgate/gateway"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Layer from "effect/Layer"
import { createHash } from "node:crypto"
import { chromium } from "playwright-core"
import { executablePath, skipped } from "../../../test/support/browser.ts"
import { answersAny } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"

// Keys that an operator adds while the gateway runs. These use real HTTP, so they run on the real clock.

const adminToken = "an-operator-with-a-long-token"
const first = "fg-first-0123456789"
const sha256 = (key: string): string => createHash("sha256").update(key).digest("hex")

interface Added {
  readonly key: string
  readonly config: NonNullable<Gateway.Options["added"]>
  readonly error: string
  readonly removed: number
}

const world = Effect.fnUntraced(function* (more: Gateway.Options = {}) {
  const upstream = yield* serve(answersAny(9, 3))
  const options: Gateway.Options = {
    upstreams: { openai: upstream.url },
    keys: [{ name: "first", sha256: sha256(first) }],
    credentials: { openai: Redacted.make("sk-provider") },
    adminToken,
    drain: "20 millis",
    ...more
  }
  const context = yield* Layer.build(
    Governor.layer({ prices: { m: { input: 1, output: 1e5 } } }).pipe(Layer.provideMerge(Budget.layer()))
  )
  const gateway = yield* Gateway.make(options).pipe(Effect.provideContext(context))
  const { url } = gateway
  const change = (body: object, headers: Record<string, string> = { "x-floodgate-admin": adminToken }) =>
    Effect.promise(async () => {
      const response = await fetch(`${url}/floodgate/keys`, { method: "POST", headers, body: JSON.stringify(body) })
      return { status: response.status, ...((await response.json()) as Added) }
    })
  const ask = (key: string) =>
    Effect.promise(async () => {
      const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" }
      const body = JSON.stringify({ model: "m", max_tokens: 9, messages: [] })
      const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body })
      await response.text()
      return response.status
    })
  return { ask, change, gateway, options, url }
})

describe("a key that is added while the gateway runs", () => {
  it.live("works at once, within its cap, and through a reload", () =>
    Effect.gen(function* () {
      const { ask, change, gateway, options } = yield* world()
      const { config, key, status } = yield* change({ name: "search", dollarsPerDay: 1, priority: 3 })
      assert.strictEqual(status, 200)
      assert.match(key, /^fg-[\w-]{43}$/)
      assert.deepStrictEqual(config, {
        keys: [{ name: "search", sha256: sha256(key) }],
        rules: [{ key: "search", priority: 3, cap: { dollars: 1, per: "day" } }]
      })
      assert.deepStrictEqual(yield* gateway.added, config)
      const capped = yield* change({ name: "search" })
      assert.deepStrictEqual(capped.config.rules, [])
      assert.deepStrictEqual(yield* Effect.forEach([key, first, "fg-none"], ask), [200, 200, 401])
      // A call may cost $0.90, and cost $0.30.
      assert.strictEqual(yield* ask(capped.key), 402)
      assert.strictEqual(yield* ask(first), 200)
      yield* gateway.reload({ ...options, maxHold: "1 minute" })
      assert.strictEqual(yield* ask(key), 402)
      // Once the configuration has the key, it also decides about its rules.
      yield* gateway.reload({ ...options, keys: [...options.keys!, ...config.keys] })
      assert.deepStrictEqual(yield* gateway.added, { keys: capped.config.keys, rules: [] })
      assert.deepStrictEqual(yield* Effect.forEach([key, capped.key], ask), [200, 200])
    })
  )

  it.live("is known to the next gateway that gets it, and not once it was removed", () =>
    Effect.gen(function* () {
      const one = yield* world()
      const { key } = yield* one.change({ name: "search", expires: "2999-01-01" })
      const other = yield* world({ added: JSON.parse(JSON.stringify(yield* one.gateway.added)) })
      assert.strictEqual(yield* other.ask(key), 200)
      const { removed } = yield* other.change({ name: "search", remove: true })
      assert.strictEqual(removed, 1)
      assert.deepStrictEqual(yield* other.gateway.added, { keys: [], rules: [] })
      assert.deepStrictEqual(yield* Effect.forEach([key, first], other.ask), [401, 200])
      assert.strictEqual((yield* other.change({ name: "search", remove: true })).status, 404)
      // A key of the configuration is not removed here.
      assert.strictEqual((yield* other.change({ name: "first", remove: true })).status, 404)
      assert.strictEqual(yield* other.ask(first), 200)
    })
  )

  it.live("needs the admin token, keys in the configuration, and what the options allow", () =>
    Effect.gen(function* () {
      const { ask, change, gateway } = yield* world()
      assert.strictEqual((yield* change({ name: "a" }, {})).status, 401)
      assert.strictEqual((yield* change({ name: "a" }, { authorization: `Bearer ${first}` })).status, 401)
      const wrong: ReadonlyArray<readonly [body: object, error: RegExp]> = [
        [{}, /^name: expected a name of 1 to 64/],
        [{ name: "*" }, /^name: .* without \*/],
        [{ name: "a", expires: "2027-02-31" }, /^expires: expected a date/],
        [{ name: "a", expires: null }, /^expires: expected a date/],
        [{ name: "a", dollarsPerDay: 0 }, /^dollarsPerDay: expected a number > 0/],
        [{ name: "a", dollarsPerDay: 1e300 }, /dollars/],
        [{ name: "a", priority: "high" }, /^priority: expected a number/],
        [{ name: "a", remove: "yes" }, /^remove: expected true or false/]
      ]
      for (const [body, error] of wrong) {
        const answer = yield* change(body)
        assert.strictEqual(answer.status, 400, JSON.stringify(body))
        assert.match(answer.error, error)
      }
      assert.deepStrictEqual(yield* gateway.added, { keys: [], rules: [] })
      assert.strictEqual(yield* ask(first), 200)
      const open = yield* world({ keys: undefined, credentials: undefined })
      const { error, status } = yield* open.change({ name: "a" })
      assert.strictEqual(status, 400)
      assert.match(error, /has no keys of its own.*floodgate gateway init/)
      const locked = yield* world({ adminToken: undefined })
      assert.strictEqual((yield* locked.change({ name: "a" })).status, 403)
    })
  )

  it.live("are all there if several are added and the options are reloaded at once", () =>
    Effect.gen(function* () {
      const { ask, change, gateway, options } = yield* world()
      const changes = Array.from({ length: 8 }, (_, n) => change({ name: `team-${n}` }))
      const [added] = yield* Effect.all(
        [
          Effect.all(changes, { concurrency: "unbounded" }),
          Effect.forEach([1, 2, 3], () => gateway.reload(options), { concurrency: "unbounded" })
        ],
        { concurrency: "unbounded" }
      )
      assert.strictEqual((yield* gateway.added).keys.length, 8)
      for (const { key } of added) assert.strictEqual(yield* ask(key), 200)
    })
  )

  it.live.skipIf(skipped !== undefined)("is shown once on the page, which keeps neither it nor the admin token", () =>
    Effect.gen(function* () {
      const folder = process.env["FLOODGATE_PICTURES"]
      const { ask, url } = yield* world({ token: "the-token-of-the-gateway" })
      const browser = yield* Effect.acquireRelease(
        Effect.promise(() =>
          chromium.launch({ executablePath, args: ["--headless", "--no-sandbox", "--disable-gpu"] })
        ),
        (browser) => Effect.promise(() => browser.close())
      )
      const keys = yield* Effect.promise(async () => {
        const keys: Array<string> = []
        for (const [width, colorScheme] of [
          [360, "light"],
          [1_440, "dark"]
        ] as const) {
          const page = await browser.newPage({ viewport: { width, height: 760 }, colorScheme })
          await page.goto(`${url}/floodgate/`)
          await page.getByLabel("Enter the token of this gateway").fill("the-token-of-the-gateway")
          await page.keyboard.press("Enter")
          await page.getByText("New key").click()
          await page.getByLabel("Name").fill(`search-${width}`)
          await page.getByLabel("Dollars a day").fill("20")
          await page.getByLabel("Admin token", { exact: true }).fill("a-guess-of-the-admin-token")
          await page.getByText("Add the key").click()
          await page.getByText("The admin token is missing or wrong").waitFor()
          await page.getByLabel("Admin token", { exact: true }).fill(adminToken)
          await page.getByText("Add the key").click()
          await page.locator("#added").waitFor()
          keys.push(await page.locator("#newKey").innerText())
          assert.include(await page.locator("#newConfig").innerText(), sha256(keys.at(-1)!))
          const [inner, scroll] = await page.evaluate<[number, number]>(
            "[innerWidth, document.documentElement.scrollWidth]"
          )
          assert.isAtMost(scroll, inner)
          if (folder !== undefined) await page.screenshot({ path: `${folder}/key-${width}.png`, fullPage: true })
          const stored = await page.evaluate<string>("JSON.stringify([sessionStorage, localStorage])")
          assert.notMatch(stored, /fg-|an-operator/)
          await page.reload()
          await page.getByText("New key").click()
          assert.isFalse(await page.locator("#added").isVisible())
          await page.close()
        }
        return keys
      })
      for (const key of keys) assert.strictEqual(yield* ask(key), 200)
    })
  )
})
