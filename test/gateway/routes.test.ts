import { assert, describe, it } from "@effect/vitest"
import { makeRouter, type Upstream, upstreamOf } from "../../src/gateway/routes.ts"

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
  // What it remembers is what it found.
  assert.strictEqual(route(method, target, (name) => headers[name])?.url, first?.url)
  return first?.url
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

  it("passes what no protocol knows", () => {
    assert.strictEqual(to("HEAD", "/api/hello"), "https://anthropic.test/api/hello")
    assert.strictEqual(to("GET", "/openai/v1/unheard/of/?x=1"), "https://openai.test/v1/unheard/of/?x=1")
    assert.isUndefined(to("GET", "/unheard/of"))
    const one = upstreams({ anthropic: "https://one.test" })
    assert.strictEqual(to("GET", "/unheard/of", {}, one), "https://one.test/unheard/of")
  })

  it("puts the path of an upstream first, and its version once", () => {
    const based = upstreams({ openai: "https://host.test/openai/v1/", own: "http://host.test:8080/base" })
    assert.strictEqual(to("POST", "/v1/chat/completions", {}, based), "https://host.test/openai/v1/chat/completions")
    assert.strictEqual(to("POST", "/own/v1/messages", {}, based), "http://host.test:8080/base/v1/messages")
  })

  it("never leaves its upstreams, nor the path that was given to one", () => {
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
    for (const target of ["/own/../../admin", "/own/%2e%2e/%2E%2e/admin", "/../admin"]) {
      assert.strictEqual(to("GET", target, {}, based), "https://host.test/tenant/admin", target)
    }
    for (const target of ["http://evil.test/v1/messages", "*", "evil.test:443", ""]) {
      assert.isUndefined(to("POST", target, {}, based), target)
    }
  })

  it("takes only addresses of HTTP without a password or a query", () => {
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
