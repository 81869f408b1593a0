import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"
import { hint, nearest } from "../../../src/domain/input/nearest.ts"
import { shown } from "../../../src/domain/input/shown.ts"

class Custom {
  readonly a = 1
}

describe("a value in an error", () => {
  it.each<readonly [unknown, string]>([
    ["12", '"12"'],
    ["", '""'],
    ["two\nlines", '"two\\nlines"'],
    [12, "12"],
    [NaN, "NaN"],
    [-0, "-0"],
    [12n, "12n"],
    [true, "true"],
    [undefined, "undefined"],
    [null, "null"],
    [Symbol("a"), "Symbol(a)"],
    [() => 1, "a function"],
    [[1, "a", [2, [3]]], '[1, "a", [2, [...]]]'],
    [[1, 2, 3, 4, 5, 6], "[1, 2, 3, 4, 5, ...]"],
    [[], "[]"],
    [{}, "{}"],
    [{ attempts: 3, "per-minute": "x" }, '{ attempts: 3, "per-minute": "x" }'],
    [{ a: { b: { c: 1 } } }, "{ a: { b: { ... } } }"],
    [Duration.seconds(90), "1m 30s"],
    [new Custom(), "an object of the class Custom"],
    [Object.create(null), "{}"]
  ])("is quoted as it was given: %o", (value, text) => {
    assert.strictEqual(shown(value), text)
  })

  it.each([
    "sk-ant-api03-Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4",
    "sk-proj-secret",
    "AIzaSyA-secret_1234567890-secret",
    "Bearer secret-0123",
    "0123456789abcdef0123456789secret",
    "redis://user:secret@127.0.0.1:6379",
    "https://example.com/v1?key=secret",
    Redacted.make("secret"),
    { apiKey: "secret", headers: { authorization: "secret", "x-api-key": "secret" } },
    ["sk-ant-api03-secret"],
    { "sk-ant-api03-secret": 1 },
    () => "secret"
  ])("never shows what may be a secret: %o", (value) => {
    assert.notMatch(shown(value), /secret|Zm9v/)
  })

  it("is shown if it is a name or a number of tokens", () => {
    for (const text of ["claude-sonnet-4-5-20250929", "gpt-5-mini-2025-08-07", "10 minutes"]) {
      assert.strictEqual(shown(text), JSON.stringify(text))
    }
    assert.strictEqual(shown({ inputTokens: "5" }), '{ inputTokens: "5" }')
  })

  it("takes one line of bounded length, whatever it is", () => {
    const circular: Record<string, unknown> = {}
    circular["self"] = circular
    const hostile = new Proxy({}, { ownKeys: () => assert.fail("thrown by the value") })
    const long = { first: "a b ".repeat(1_000), second: "c d ".repeat(1_000), third: "e f ".repeat(1_000) }
    for (const value of [
      "x y ".repeat(1e5),
      // Regression: the search for secrets took 45 s.
      "x".repeat(1e6),
      long,
      circular,
      hostile,
      Array.from({ length: 1e5 }, () => long),
      {
        get a() {
          throw 1
        }
      }
    ]) {
      assert.isAtMost(shown(value).length, 80)
      assert.notInclude(shown(value), "\n")
    }
  })
})

const known = ["limits", "concurrency", "maxQueued", "learned", "perMinute", "perSecond", "weight", "agent"]

describe("the name that was probably meant", () => {
  it.each([
    ["limit", "limits"],
    ["limts", "limits"],
    ["LIMITS", "limits"],
    ["concurency", "concurrency"],
    ["maxQueue", "maxQueued"],
    ["perMin", "perMinute"],
    ["conc", "concurrency"],
    ["agents", "agent"],
    ["weigth", "weight"],
    ["wieght", "weight"],
    ["agnet", "agent"]
  ])("of %s is %s", (name, meant) => {
    assert.strictEqual(nearest(name, known), meant)
  })

  it.each(["x", "timeout", "mispelt", "", "l".repeat(1_000)])("is none for %s", (name) => {
    assert.isUndefined(nearest(name, known))
  })

  it("is the nearest of several, and the first of those that are equally near", () => {
    assert.strictEqual(nearest("model-5", ["model-55", "model-5a"]), "model-55")
    assert.strictEqual(nearest("model-5", ["model-555", "model-5a"]), "model-5a")
  })

  it("is suggested, or else all names are listed", () => {
    assert.strictEqual(hint("limit", known), 'did you mean "limits"?')
    assert.strictEqual(hint("nothing like it", ["a", "b"]), "known are a, b")
  })
})
