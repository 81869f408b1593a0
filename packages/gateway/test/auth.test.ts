/** Who may send requests to a gateway without a token. */
import { assert, describe, it } from "@effect/vitest"
import type { IncomingMessage } from "node:http"
import { makeAuth } from "../src/auth.ts"

const request = (headers: Record<string, string>) => ({ url: "/v1/messages", headers }) as unknown as IncomingMessage

describe("a gateway without a token", () => {
  it("refuses pages of other sites, also after it has answered a local program at the same address", () => {
    const check = makeAuth(undefined, new Set())
    const host = "localhost:8787"
    const isRefused = (headers: Record<string, string>) => check(request({ host, ...headers })).refusal !== undefined
    assert.isFalse(isRefused({}))
    assert.isTrue(isRefused({ origin: "https://evil.test" }))
    assert.isFalse(isRefused({ origin: "http://localhost:3000" }))
    assert.isTrue(isRefused({ origin: "https://evil.test" }))
    assert.isFalse(isRefused({}))
  })

  it("refuses a name that is not its own, and one that no request gave", () => {
    const check = makeAuth(undefined, new Set(["gateway.test"]))
    const isRefused = (headers: Record<string, string>) => check(request(headers)).refusal !== undefined
    assert.isTrue(isRefused({}))
    assert.isTrue(isRefused({ host: "evil.test" }))
    assert.isFalse(isRefused({ host: "gateway.test:8787" }))
    assert.isTrue(isRefused({}))
  })
})
