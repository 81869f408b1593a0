/**
 * The script of the Redis store, in a Lua in this process. Each change of one operator, condition or statement must be noticed.
 * `packages/redis/test/store.test.ts` shows that a real server answers like this Lua.
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

  assert.deepStrictEqual(read(), [null, null, 0], "nothing is stored")
  assert.deepStrictEqual(swap("0", "1", "one"), [null, null, 0], "another version is expected than none")
  assert.deepStrictEqual(read(), [null, null, 0], "nothing was replaced")
  assert.isNull(swap("", "1", "one"), "none is expected, and none is there")
  assert.deepStrictEqual(read(), ["1", "one", 0], "it is stored")
  now += 1_234
  assert.deepStrictEqual(read(), ["1", "one", 1_234], "how long ago it was stored")
  assert.deepStrictEqual(swap("", "2", "two"), ["1", "one", 1_234], "none is expected, and one is there")
  assert.deepStrictEqual(swap("2", "3", "three"), ["1", "one", 1_234], "another one is there")
  assert.isNull(swap("1", "2", "two"), "the expected one is there")
  assert.deepStrictEqual(read(), ["2", "two", 0], "it was replaced")
  now += 59_999
  assert.deepStrictEqual(read(), ["2", "two", 59_999], "it is kept as long as it has to be")
  now += 1
  assert.deepStrictEqual(read(), [null, null, 0], "and no longer")
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

  it("has no superfluous part: every mutant but an equivalent one is noticed", () => {
    assert.isAtLeast(mutants.length, 13)
    const survivors = mutants.filter(({ source }) => {
      try {
        check(source)
        return true
      } catch {
        return false
      }
    })
    // To return nothing is to return false.
    assert.deepStrictEqual(
      survivors.map(({ name }) => name.split(",")[0]),
      ["return false  ->  nothing"]
    )
  })
})
