/**
 * The script of the Redis store, in a Lua in this process. Each change of one operator, condition or statement must be noticed.
 * `packages/redis/test/store.system.test.ts` shows that a real server answers like this Lua.
 */
import { assert, describe, it } from "@effect/vitest"
import { script } from "../../packages/redis/src/store.ts"
import * as LuaRedis from "./luaRedis.ts"

const redis = await LuaRedis.make()

/** Throws unless a script does what the store needs. */
const check = (source: string): void => {
  let now = 1_700_000_000_900
  redis.reset()
  redis.now = () => now
  const read = () => redis.send(["EVAL", source, "1", "pool"])
  const swap = (expected: string, version: string, value: string, keepMillis = 60_000) =>
    redis.send(["EVAL", source, "1", "pool", expected, version, value, String(keepMillis)])

  assert.deepStrictEqual(read(), [null, null, 0, now], "nothing is stored")
  assert.deepStrictEqual(swap("0", "1", "one"), [null, null, 0, now], "another version is expected than none")
  assert.deepStrictEqual(read(), [null, null, 0, now], "nothing was replaced")
  assert.strictEqual(swap("", "1", "one"), now, "none is expected, and none is there")
  assert.deepStrictEqual(read(), ["1", "one", 0, now], "it is stored")
  now += 1_234
  assert.deepStrictEqual(read(), ["1", "one", 1_234, now], "how long ago it was stored")
  assert.deepStrictEqual(swap("", "2", "two"), ["1", "one", 1_234, now], "none is expected, and one is there")
  assert.deepStrictEqual(swap("2", "3", "three"), ["1", "one", 1_234, now], "another one is there")
  assert.strictEqual(swap("1", "2", "two"), now, "the expected one is there")
  assert.deepStrictEqual(read(), ["2", "two", 0, now], "it was replaced")
  now += 59_999
  assert.deepStrictEqual(read(), ["2", "two", 59_999, now], "it is kept as long as it has to be")
  now += 1
  assert.deepStrictEqual(read(), [null, null, 0, now], "and no longer")
}

const others: ReadonlyArray<readonly [RegExp, string]> = [
  [/ \* /g, " / "],
  [/ \/ /g, " * "],
  [/ \+ /g, " - "],
  [/ - /g, " + "],
  [/ ~= /g, " == "],
  [/ or /g, " and "],
  [/(?<=if ).*(?= then)/g, "true"],
  [/(?<=if ).*(?= then)/g, "false"],
  [/(?<=\n)redis\.call.*(?=\n)/g, ""],
  [/(?<=\n *)return .*(?=\n)/g, ""]
]

/** Each change, by what it replaces. */
const mutants = others.flatMap(([what, is]) =>
  Array.from(script.matchAll(what), (found) => ({
    name: `${found[0].trim()}  ->  ${is.trim() === "" ? "nothing" : is.trim()}, at ${found.index}`,
    source: script.slice(0, found.index) + is + script.slice(found.index + found[0].length)
  }))
)

describe("the script of Redis", () => {
  it("reads, and swaps if the version is the expected one", () => {
    assert.doesNotThrow(() => check(script))
  })

  it("has no superfluous part: every mutant is noticed", () => {
    assert.isAtLeast(mutants.length, 13)
    const survivors = mutants.filter(({ source }) => {
      try {
        check(source)
        return true
      } catch {
        return false
      }
    })
    assert.deepStrictEqual(survivors, [])
  })
})
