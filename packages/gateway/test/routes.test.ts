import { assert, describe, it } from "@effect/vitest"
import { apiCalls } from "../../../test/support/apis.ts"
import { Bounds } from "floodgate/internal"
import { refusalOf } from "../src/http1.ts"
import { makeRouter, type Upstream, upstreamOf } from "../src/routes.ts"

const upstreams = (given: Record<string, string>): ReadonlyMap<string, Upstream> =>
  new Map(Object.entries(given).map(([name, address]) => [name, upstreamOf(name, address)!]))

const three = upstreams({
  anthropic: "https://anthropic.test",
  openai: "https://openai.test",
  gemini: "https://gemini.test"
})

const to = (method: string, target: string, headers: Record<string, string> = {}, from = three): string | undefined => {
  const route = makeRouter(from, () => undefined)
  const first = route(method, target, (name) => headers[name])
  // A remembered route is the one that was found.
  assert.deepStrictEqual(
    route(method, target, (name) => headers[name]),
    first
  )
  return "url" in first ? first.url : undefined
}

/** The answer to a request without an upstream, in the protocol of its client. */
const lost = (method: string, target: string, headers: Record<string, string> = {}, from = three) => {
  const found = makeRouter(from, () => undefined)(method, target, (name) => headers[name])
  return "message" in found ? [found.message, found.protocol?.name] : assert.fail(found.url)
}

describe("routes of the gateway", () => {
  it("finds the provider by the path, in every form of base URL", () => {
    for (const path of [
      "/v1/messages",
      "/messages",
      "/v1/v1/messages",
      "/anthropic/v1/messages",
      "/v1/v1/v1/messages"
    ]) {
      assert.strictEqual(to("POST", `${path}?beta=true`), "https://anthropic.test/v1/messages?beta=true", path)
    }
    for (const path of ["/v1/chat/completions", "/chat/completions", "/openai/v1/chat/completions"]) {
      assert.strictEqual(to("POST", path), "https://openai.test/v1/chat/completions", path)
    }
    assert.strictEqual(to("POST", "/responses"), "https://openai.test/v1/responses")
    const call = "/v1beta/models/gemini-3:streamGenerateContent?alt=sse"
    assert.strictEqual(to("POST", call), `https://gemini.test${call}`)
  })

  it("tells providers apart by what their clients send where they share a path", () => {
    assert.strictEqual(
      to("GET", "/v1/models", { "anthropic-version": "2023-06-01" }),
      "https://anthropic.test/v1/models"
    )
    assert.strictEqual(to("GET", "/v1/models"), "https://openai.test/v1/models")
    assert.strictEqual(to("GET", "/v1/models", { "x-goog-api-key": "k" }), "https://gemini.test/v1/models")
    assert.strictEqual(to("GET", "/openai/v1/models", { "anthropic-version": "1" }), "https://openai.test/v1/models")
    assert.strictEqual(to("GET", "/anthropic/v1/models"), "https://anthropic.test/v1/models")
  })

  // OpenAI's own suite got 404 for 210 of these requests.
  it("sends to OpenAI what only OpenAI has, and to Anthropic what its clients send to paths of both", () => {
    for (const [method, path] of [
      ["GET", "/v1/organization/usage/completions"],
      ["POST", "/v1/organization/projects/p1/api_keys"],
      ["POST", "/v1/chatkit/sessions"],
      ["GET", "/v1/chatkit/threads/t1/items"],
      ["POST", "/v1/content_provenance_checks"],
      ["POST", "/v1/decisions"],
      ["POST", "/v1/live/sessions/s1/accept"],
      ["GET", "/v1/safety/events"],
      ["POST", "/v1/webhook_endpoints"],
      ["POST", "/v1/agents/sessions/s1/events"]
    ] as const) {
      assert.strictEqual(to(method, path, { authorization: "Bearer k" }), `https://openai.test${path}`, path)
    }
    for (const path of ["/v1/skills", "/v1/skills/skill_1/versions", "/v1/files", "/v1/agents", "/v1/vaults/v1"]) {
      for (const header of ["anthropic-version", "x-api-key"]) {
        assert.strictEqual(to("POST", path, { [header]: "any" }), `https://anthropic.test${path}`, path)
      }
      assert.strictEqual(to("POST", path, { authorization: "Bearer k" }), `https://openai.test${path}`, path)
      // Anthropic's client sends a token with its version.
      const both = { authorization: "Bearer k", "anthropic-version": "2026-10-21" }
      assert.strictEqual(to("POST", path, both), `https://anthropic.test${path}`, path)
    }
    for (const path of ["/v1/organizations/me", "/v1/sessions/s1/events", "/v1/memory_stores"]) {
      assert.strictEqual(to("GET", path), `https://anthropic.test${path}`, path)
    }
  })

  const all = upstreams({
    anthropic: "https://anthropic.test",
    openai: "https://openai.test",
    gemini: "https://gemini.test",
    bedrock: "https://bedrock.test",
    mistral: "https://mistral.test",
    cohere: "https://cohere.test",
    ollama: "http://ollama.test",
    "llama-cpp": "http://llama.test"
  })

  it("sends each provider's own calls to it", () => {
    for (const { path, upstream } of apiCalls) {
      // Without a name, OpenAI's conversations have precedence over Mistral's.
      const isShared = path.startsWith("/v1/conversations")
      const host = all.get(isShared ? "openai" : upstream)!.origin
      assert.strictEqual(to("POST", path, {}, all), `${host}${path}`, path)
      assert.strictEqual(to("POST", `/${upstream}${path}`, {}, all), `${all.get(upstream)!.origin}${path}`, path)
    }
    const mistral = upstreams({ anthropic: "https://anthropic.test", mistral: "https://mistral.test" })
    assert.strictEqual(to("POST", "/v1/conversations", {}, mistral), "https://mistral.test/v1/conversations")
  })

  it("sends a prompt for Ollama nowhere else", () => {
    for (const path of ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"]) {
      assert.strictEqual(to("POST", path, {}, all), `http://ollama.test${path}`)
      const [message, protocol] = lost("POST", path)
      assert.strictEqual(message, 'No upstream named "ollama"; this gateway has anthropic, openai, gemini')
      assert.strictEqual(protocol, "ollama")
      const claude = upstreams({ anthropic: "https://anthropic.test" })
      assert.match(String(lost("POST", path, {}, claude)[0]), /^No upstream named "ollama"/)
    }
    for (const [method, path] of [
      ["GET", "/api/tags"],
      ["POST", "/api/show"],
      ["GET", "/api/version"]
    ] as const) {
      assert.strictEqual(to(method, path, {}, all), `http://ollama.test${path}`)
    }
    assert.strictEqual(to("HEAD", "/api/hello", {}, all), "https://anthropic.test/api/hello")
  })

  it("passes on requests that no protocol knows", () => {
    assert.strictEqual(to("HEAD", "/api/hello"), "https://anthropic.test/api/hello")
    assert.strictEqual(to("GET", "/openai/v1/unknown/path/?x=1"), "https://openai.test/v1/unknown/path/?x=1")
    assert.isUndefined(to("GET", "/v1/unknown/path"))
    const one = upstreams({ anthropic: "https://one.test" })
    assert.strictEqual(to("GET", "/v1/unknown/path", {}, one), "https://one.test/v1/unknown/path")
    assert.strictEqual(to("HEAD", "/", {}, one), "https://one.test/")
  })

  it("never sends a request to a provider other than the one in its path", () => {
    const groq = upstreams({ groq: "https://groq.test/openai" })
    const two = upstreams({ openai: "https://openai.test", anthropic: "https://anthropic.test" })
    const one = upstreams({ openai: "https://openai.test" })
    const missing = (name: string, from: string) => `No upstream named "${name}"; this gateway has ${from}`
    const cases = [
      ["POST", "/v1/messages", groq, "anthropic", "groq", "anthropic-messages"],
      ["POST", "/anthropic/v1/messages", groq, "anthropic", "groq", "anthropic-messages"],
      ["POST", "/v1/chat/completions", groq, "openai", "groq", "openai-chat"],
      ["POST", "/groq/v1/chat/completions", two, "groq", "openai, anthropic", "openai-chat"],
      ["POST", "/gorq/openai/v1/chat/completions", two, "gorq", "openai, anthropic", "openai-chat"],
      ["POST", "/gemini/v1beta/models/m:generateContent", two, "gemini", "openai, anthropic", "gemini"],
      ["POST", "/v1beta/models/m:generateContent", two, "gemini", "openai, anthropic", "gemini"],
      ["POST", "/groq/v1/chat/completions", one, "groq", "openai", "openai-chat"],
      ["POST", "/groq/v1/responses", one, "groq", "openai", "openai-responses"],
      ["POST", "/v1/messages", one, "anthropic", "openai", "anthropic-messages"],
      ["POST", "/v1/messages/count_tokens", one, "anthropic", "openai", "anthropic-messages"],
      ["GET", "/groq/unknown/path", one, "groq", "openai", undefined],
      ["GET", "/unknown/path", one, "unknown", "openai", undefined]
    ] as const
    for (const [method, path, from, name, has, protocol] of cases) {
      assert.deepStrictEqual(lost(method, path, {}, from), [missing(name, has), protocol], path)
    }
    const versioned = { "anthropic-version": "2023-06-01" }
    assert.strictEqual(lost("GET", "/v1/models", versioned, one)[0], missing("anthropic", "openai"))
    for (const path of ["/v1/models", "/v1/vector_stores/vs_1", "/v1/realtime/client_secrets"]) {
      const claude = upstreams({ anthropic: "https://anthropic.test" })
      assert.strictEqual(lost("GET", path, {}, claude)[0], missing("openai", "anthropic"), path)
      assert.strictEqual(to("GET", path, {}, two), `https://openai.test${path}`)
    }
    assert.strictEqual(
      lost("GET", "/v1/unknown/path", {}, groq)[0],
      "No upstream serves this path: put a name in front of it, as in /groq/; this gateway has groq"
    )
    assert.include(lost("GET", `/${"x".repeat(9_000)}/`, {}, groq)[0], `"${"x".repeat(64)}"`)
  })

  it("sends a provider's own paths to it without a name, if it is the only upstream", () => {
    const one = (name: string) => upstreams({ [name]: "https://one.test/v1" })
    for (const [name, method, path, there = path] of [
      ["anthropic", "POST", "/v1/messages"],
      ["anthropic", "POST", "/messages", "/v1/messages"],
      ["anthropic", "POST", "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict"],
      ["anthropic", "POST", "/model/m/invoke", "/v1/model/m/invoke"],
      ["anthropic", "POST", "/api/event_logging/batch", "/v1/api/event_logging/batch"],
      ["openai", "POST", "/chat/completions", "/v1/chat/completions"],
      ["openai", "POST", "/responses", "/v1/responses"],
      ["openai", "GET", "/models", "/v1/models"],
      ["openai", "POST", "/embeddings", "/v1/embeddings"]
    ] as const) {
      assert.strictEqual(to(method, path, {}, one(name)), `https://one.test${there}`, path)
    }
    const gemini = upstreams({ gemini: "https://one.test" })
    for (const path of ["/v1beta/models/m:generateContent", "/upload/v1beta/files"]) {
      assert.strictEqual(to("POST", path, {}, gemini), `https://one.test${path}`)
    }
    assert.strictEqual(
      to("POST", "/models/m:generateContent", {}, gemini),
      "https://one.test/v1beta/models/m:generateContent"
    )
  })

  it("puts the path of an upstream first, and its version once", () => {
    const based = upstreams({ openai: "https://host.test/openai/v1/", own: "http://host.test:8080/base" })
    assert.strictEqual(to("POST", "/v1/chat/completions", {}, based), "https://host.test/openai/v1/chat/completions")
    assert.strictEqual(to("POST", "/own/v1/messages", {}, based), "http://host.test:8080/base/v1/messages")
  })

  it("keeps a path in front of the version, which some clients add by themselves", () => {
    const groq = upstreams({ groq: "https://api.groq.test" })
    const there = "https://api.groq.test/openai/v1/chat/completions"
    assert.strictEqual(to("POST", "/groq/openai/v1/chat/completions", {}, groq), there)
  })

  it("never leaves its upstreams or their base paths", () => {
    const based = upstreams({ own: "https://host.test/tenant" })
    const targets = [
      "//evil.test/v1/messages",
      "/own//evil.test",
      "/own/@evil.test",
      "/own/..%2f..%2fadmin",
      "/\\evil.test"
    ]
    for (const target of targets) {
      const url = to("POST", target, { host: "evil.test" }, based)
      assert.isTrue(url === undefined || url.startsWith("https://host.test/tenant/"), `${target}: ${url}`)
    }
    for (const target of ["/own/../own/../own/admin", "/own/%2e%2e/%2E%2e/own/admin", "/../own/admin"]) {
      assert.strictEqual(to("GET", target, {}, based), "https://host.test/tenant/admin", target)
    }
    for (const target of ["/own/../../admin", "/own/%2e%2e/%2E%2e/admin", "/../admin"]) {
      assert.isUndefined(to("GET", target, {}, based), target)
    }
    for (const target of ["http://evil.test/v1/messages", "*", "evil.test:443", ""]) {
      assert.isUndefined(to("POST", target, {}, based), target)
    }
  })

  it("accepts only HTTP addresses without a password or a query", () => {
    for (const address of [
      "ftp://host.test",
      "host.test",
      "https://me:secret@host.test",
      "https://host.test/?key=1",
      ""
    ]) {
      assert.isUndefined(upstreamOf("own", address), address)
    }
  })
})

describe("the headers of a request", () => {
  /** A request as Node gives it: `raw` as it was sent, and what Node shows of it. */
  const request = (raw: ReadonlyArray<readonly [string, string]>, shown = raw) =>
    ({
      method: "POST",
      headers: Object.fromEntries(shown.map(([name, value]) => [name.toLowerCase(), value])),
      rawHeaders: raw.flat()
    }) as never
  const lines = (count: number) => Array.from({ length: count }, (_, index) => [`X-Line-${index}`, "1"] as const)
  const key = ["Authorization", "Bearer sk-hidden"] as const

  it("are refused if Node does not show all of them", () => {
    assert.isUndefined(refusalOf(request([key, ...lines(20)])))
    assert.isUndefined(refusalOf(request([...lines(Bounds.bounds.headerLines.max - 1), key])))
    assert.strictEqual(refusalOf(request([...lines(20), key], lines(20)))?.kind, "invalid")
    // A name that Node shows may stand a second time behind those that it reads.
    const te = Array.from({ length: Bounds.bounds.headerLines.max - 1 }, () => ["te", "trailers"] as const)
    assert.isUndefined(refusalOf(request([key, ...te])))
    assert.strictEqual(refusalOf(request([key, ...te, ["authorization", "Bearer sk-other"]]))?.kind, "invalid")
  })
})
