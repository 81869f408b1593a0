/** The OpenAPI document of a gateway: it has what the router knows, real answers are as it says, and so is who may ask. */
import { assert, describe, it } from "@effect/vitest"
import { Ajv2020 } from "ajv/dist/2020.js"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { until } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"
import { answers, chat, completion, json, world } from "./world.ts"

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly security: ReadonlyArray<Readonly<Record<string, ReadonlyArray<string>>>>
  readonly parameters: ReadonlyArray<{ readonly name: string; readonly in: string; readonly schema: object }>
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: object }>> }
  readonly responses: Readonly<
    Record<
      string,
      { readonly description: string; readonly content?: Readonly<Record<string, { readonly schema: object }>> }
    >
  >
}

interface Scheme {
  readonly type: string
  readonly scheme?: string
  readonly name?: string
}

interface OpenApi {
  readonly openapi: string
  readonly info: { readonly title: string; readonly version: string }
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly securitySchemes: Readonly<Record<string, Scheme>> }
}

const documentOf = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/floodgate/openapi.json`)
    assert.deepStrictEqual([response.status, response.headers.get("content-type")], [200, "application/json"])
    return (await response.json()) as OpenApi
  })

const operationsOf = ({ paths }: OpenApi) =>
  Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation }))
  )

/** A schema that allows no field which it does not name, so that a test notices what is not documented. */
const closed = (schema: unknown): unknown => {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== "object" || schema === null) return schema
  const inner = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]))
  return "properties" in inner ? { ...inner, additionalProperties: false } : inner
}

const ajv = new Ajv2020({ strict: true, allErrors: true, allowUnionTypes: true })

/** Asserts that an answer has a status, a type and a body that the document has for it. */
const holds = (operation: Operation, status: number, type: string | null, text: string): void => {
  const answer = operation.responses[status]
  const where = `${operation.operationId} ${status}`
  assert.isDefined(answer, where)
  const [media = ""] = (type ?? "").split(";")
  if (answer!.content === undefined) return assert.strictEqual(text, "", where)
  const content = answer!.content[media]
  assert.isDefined(content, `${where} ${media}`)
  const validate = ajv.compile(closed(content!.schema) as object)
  const body: unknown = media === "application/json" ? JSON.parse(text) : text
  assert.isTrue(validate(body), `${where}: ${ajv.errorsText(validate.errors)}`)
}

const token = "the-token-of-the-gateway"
const requestsToken = "who-calls-what-and-when"
const adminToken = "an-admin-of-the-gateway"

/** What a client sends by a scheme of the document. */
const sent = ({ name, scheme, type }: Scheme, secret: string): Record<string, string> => {
  assert.include(["apiKey", "http"], type)
  return type === "http" ? { authorization: `${scheme} ${secret}` } : { [name!]: secret }
}
const secrets: Readonly<Record<string, string>> = { token, bearer: token, requests: requestsToken, admin: adminToken }

const asked = (url: string, method: string, path: string, headers: Record<string, string>) =>
  Effect.promise(async (signal) => {
    const controller = new AbortController()
    signal.addEventListener("abort", () => controller.abort())
    const body = method === "POST" ? JSON.stringify({ cap: "nobody", reset: true }) : null
    const response = await fetch(`${url}${path}`, {
      method,
      headers,
      body,
      redirect: "manual",
      signal: controller.signal
    })
    const type = response.headers.get("content-type")
    if (type === "text/event-stream") {
      controller.abort()
      return { status: response.status, type, text: "" }
    }
    return { status: response.status, type, text: await response.text() }
  })

describe("GET /floodgate/openapi.json", () => {
  it.live("has every endpoint that the router knows and the documentation names, and no other", () =>
    Effect.gen(function* () {
      const { url } = yield* world(answers)
      const document = yield* documentOf(url)
      assert.strictEqual(document.openapi, "3.1.1")
      const operations = operationsOf(document)
      assert.deepStrictEqual(operations.map(({ method, path }) => `${method} ${path}`).sort(), [
        "GET /floodgate",
        "GET /floodgate/",
        "GET /floodgate/advice",
        "GET /floodgate/events",
        "GET /floodgate/forecast",
        "GET /floodgate/openapi.json",
        "GET /floodgate/page.css",
        "GET /floodgate/page.js",
        "GET /floodgate/requests",
        "GET /floodgate/status",
        "GET /floodgate/tickets",
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "POST /floodgate/caps",
        "POST /floodgate/jobs",
        "POST /floodgate/keys",
        "POST /floodgate/tickets"
      ])
      const ids = operations.map(({ operation }) => operation.operationId)
      assert.strictEqual(new Set(ids).size, ids.length)
      const docs = join(import.meta.dirname, "../../../docs")
      const pages = readdirSync(docs, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".md"))
      const named = pages.flatMap(
        (file) =>
          readFileSync(join(docs, file), "utf8").match(
            /(?<=[`/\d ])\/(?:floodgate\/[a-z.]*|metrics|healthz|readyz)(?=[`?\s"])/g
          ) ?? []
      )
      assert.isAbove(named.length, 10)
      for (const path of named) assert.include(Object.keys(document.paths), path)
      for (const { method, operation, path } of operations) {
        const { status, text, type } = yield* asked(url, method, path, {})
        assert.notStrictEqual(status, 500)
        if (type !== "text/event-stream") holds(operation, status, type, text)
      }
      assert.strictEqual((yield* asked(url, "GET", "/floodgate/elsewhere", {})).status, 404)
    })
  )

  it.live("says who may use an endpoint: exactly what it names opens it, whether the gateway has a token or not", () =>
    Effect.gen(function* () {
      for (const own of [{}, { token }]) {
        const { url } = yield* world(answers, { ...own, requestsToken, adminToken })
        const document = yield* documentOf(url)
        const { securitySchemes } = document.components
        for (const { method, operation, path } of operationsOf(document)) {
          const bare = yield* asked(url, method, path, {})
          assert.strictEqual(bare.status === 401, operation.security.length > 0, path)
          if (bare.status === 401) holds(operation, 401, bare.type, bare.text)
          for (const alternative of operation.security) {
            const names = Object.keys(alternative)
            const headers = Object.assign(
              {},
              ...names.map((name) => sent(securitySchemes[name]!, secrets[name]!))
            ) as Record<string, string>
            const opened = yield* asked(url, method, path, headers)
            assert.notInclude([401, 403], opened.status, `${path} ${names}`)
            if (opened.type !== "text/event-stream") holds(operation, opened.status, opened.type, opened.text)
            // Each of them is needed.
            for (const name of Object.keys(headers)) {
              const { [name]: _, ...rest } = headers
              assert.strictEqual((yield* asked(url, method, path, rest)).status, 401, `${path} without ${name}`)
            }
          }
        }
        for (const [name, scheme] of Object.entries(securitySchemes)) assert.isDefined(secrets[name], scheme.type)
      }
    })
  )

  it.live("describes real answers, in which much has happened", () =>
    Effect.gen(function* () {
      let calls = 0
      let isStuck = false
      const upstream = yield* serve((request, response, body) => {
        if (body.includes("stuck")) return void (isStuck = true)
        calls++
        if (request.url!.includes("messages")) {
          const until = Math.ceil(Date.now() / 1_000) + 3_600
          return json(
            response,
            200,
            JSON.stringify({
              id: "m",
              type: "message",
              role: "assistant",
              model: "claude-sonnet-5",
              content: [],
              stop_reason: "end_turn",
              usage: { input_tokens: 900, output_tokens: 30, cache_read_input_tokens: 50 }
            }),
            {
              "anthropic-ratelimit-unified-status": "allowed",
              "anthropic-ratelimit-unified-5h-status": "allowed",
              "anthropic-ratelimit-unified-5h-utilization": "0.4",
              "anthropic-ratelimit-unified-5h-reset": String(until)
            }
          )
        }
        // The first call is rejected, and the second fails.
        if (calls === 1) return json(response, 429, "{}", { "retry-after": "0" })
        if (calls === 2) return json(response, 500, "{}")
        return json(response, 200, completion)
      })
      const context = yield* Layer.build(
        Governor.layer({
          prices: { "gpt-6": { input: 1, output: 10, maxOutput: 100 } },
          retry: Retry.make({ base: "5 millis", jitter: "none" }) as never
        }).pipe(
          Layer.provideMerge(
            Layer.provide(
              Agents.layer,
              Budget.layer({ limits: { requests: { perMinute: 600 }, tokens: { perMinute: 90_000 } }, concurrency: 1 })
            )
          ),
          Layer.provideMerge(Gateway.layerEvents),
          Layer.provideMerge(Logger.layer([]))
        )
      )
      const { url } = yield* Gateway.make({
        upstreams: { openai: upstream.url, anthropic: upstream.url },
        rules: [
          { name: "everybody", cap: { dollars: 20, per: "day" } },
          { agent: "spender", cap: { dollars: 1e-6 } }
        ],
        places: {
          "gpt-6": [
            { upstream: "openai", name: "a", tier: "flex" },
            { upstream: "openai", name: "b" }
          ]
        },
        requestsToken,
        adminToken,
        drain: "20 millis"
      }).pipe(Effect.provideContext(context))
      const controller = new AbortController()
      yield* Effect.addFinalizer(() => Effect.sync(() => controller.abort()))
      const call = (agent: string, path = "/v1/chat/completions", model = "gpt-6", more: object = {}) =>
        fetch(`${url}${path}`, {
          ...chat({ model, max_tokens: 10, ...more }, { "x-floodgate-agent": agent }),
          signal: controller.signal
        })
      yield* Effect.promise(async () => {
        for (const agent of ["one", "two", "spender", "one"]) await (await call(agent)).text()
        await (await call("three", "/v1/messages", "claude-sonnet-5")).text()
        call("stuck", "/v1/messages", "claude-sonnet-5", { metadata: { user_id: "stuck" } }).catch(() => {})
      })
      yield* until(
        Effect.sync(() => isStuck),
        (is) => is
      )
      // Its model has one place, so that it must wait.
      call("queued", "/v1/messages", "claude-sonnet-5").catch(() => {})
      const document = yield* documentOf(url)
      const headers = { "x-floodgate-requests": requestsToken, "x-floodgate-admin": adminToken }
      const get = (path: string, init: RequestInit = {}) =>
        Effect.promise(async () => {
          const response = await fetch(`${url}${path}`, { headers, ...init })
          const text = await response.text()
          const operation = document.paths[path.split("?")[0]!]![(init.method ?? "GET").toLowerCase()]!
          holds(operation, response.status, response.headers.get("content-type"), text)
          return text.startsWith("{") ? (JSON.parse(text) as Readonly<Record<string, ReadonlyArray<unknown>>>) : {}
        })
      const status = yield* until(
        get("/floodgate/status"),
        ({ caps, events, pools }) =>
          caps!.length > 1 && events!.length > 1 && JSON.stringify(pools).includes('"agent":"queued"')
      )
      for (const name of ["pools", "agents", "caps", "windows", "estimates", "minutes", "events", "upstreams"]) {
        assert.isNotEmpty(status[name], `${name} has something to validate`)
      }
      assert.isAbove((yield* get("/floodgate/requests"))["requests"]!.length, 3)
      yield* get("/floodgate/requests?limit=many")
      for (const topic of ["advice", "forecast"]) {
        yield* get(
          `/floodgate/${topic}?agents=3&calls=2&inputTokens=900&outputTokens=30&growthTokens=5&cachedShare=0.5&secondsPerCall=2&pause=9&askingTokens=400&model=gpt-6`
        )
        yield* get(`/floodgate/${topic}?agents=none`)
        yield* get(`/floodgate/${topic}?pool=nowhere`)
      }
      for (const body of [
        '{"cap":"everybody","dollars":30,"reset":true}',
        '{"cap":"nobody","reset":true}',
        "no JSON",
        `"${"x".repeat(20_000)}"`
      ]) {
        yield* get("/floodgate/caps", { method: "POST", body })
      }
      yield* get("/floodgate/keys", { method: "POST", body: '{"name":"without-keys"}' })
    })
  )
})
