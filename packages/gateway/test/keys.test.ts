/** The gateway's own keys. */
import { assert, describe, it } from "@effect/vitest"
import { hash } from "node:crypto"
import { makeKeyring } from "../src/keys.ts"

const expires = "2026-12-01T12:00:00Z"
const at = Date.parse(expires)
const ring = makeKeyring([
  { name: "team", sha256: hash("sha256", "fg-one"), expires },
  { name: "team", sha256: hash("sha256", "fg-two").toUpperCase() }
])

const checked = (sent: ReadonlyArray<string>, now: number): string => {
  const result = ring.check(sent, now)
  return "reason" in result ? `${result.reason} ${result.name}`.trim() : result.name
}

describe("a keyring", () => {
  it("accepts a key until the moment at which it expires, and names it then", () => {
    assert.strictEqual(checked(["fg-one"], at - 1), "team")
    assert.strictEqual(checked(["fg-one"], at), "expired team")
    assert.strictEqual(checked(["fg-two"], at), "team")
  })

  it("accepts no other key, nor several", () => {
    assert.strictEqual(checked([], 0), "missing")
    assert.strictEqual(checked(["fg-three"], 0), "unknown")
    assert.strictEqual(checked(["fg-one", "fg-two"], 0), "several")
  })

  it("knows its keys by their hashes", () => {
    const { id } = ring.check(["fg-two"], 0) as { readonly id: string }
    assert.isTrue(ring.has(id))
    assert.isFalse(ring.has(hash("sha256", "fg-three")))
  })
})
