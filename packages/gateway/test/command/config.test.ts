import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import { parseJson } from "../../src/command/json.ts"
import { Config } from "../../src/settings/index.ts"
import { decode, sentence } from "../../src/settings/problems.ts"

/** The error of a configuration. */
const said = (text: string): string => {
  const json = parseJson(text)
  if ("error" in json) return json.error
  const result = decode(Config)(json.value)
  return Result.isFailure(result)
    ? sentence(result.failure, (place) => (place === "" ? "the whole file" : place.slice(1)))
    : "nothing"
}

describe("the configuration of a gateway", () => {
  it.each([
    ['{"upstream":{}}', 'unknown setting "upstream": did you mean "upstreams"?'],
    [
      '{"limits":{"inputTokens":{"perMinut":3}}}',
      'unknown setting "limits.inputTokens.perMinut": did you mean "perMinute"?'
    ],
    ['{"limits":{"pool":{}}}', 'unknown setting "limits.pool": did you mean "pools"?'],
    [
      '{"limits":{"pools":{"m":{"request":{"perMinute":3}}}}}',
      'unknown setting "limits.pools.m.request": did you mean "requests"?'
    ],
    ['{"limits":{"requests":{"zzz":1}}}', /^unknown setting "limits\.requests\.zzz": known are perSecond, perMinute, /],
    ['{"limits":{"pools":{},"requests":{"total":1}}}', "limits: expected either one set of limits, or pools"],
    ['{"maxHold":true}', 'maxHold: expected a duration such as "4 minutes", or seconds, got true'],
    [
      '{"port":"x","maxQueued":"7"}',
      'port: expected an integer from 0 to 65535, got "x"; maxQueued: expected an integer from 0 to 1000000, got "7"'
    ],
    [
      '{"rules":[{"cap":{"per":"day"}},{"agnt":"x"}]}',
      '"rules[0].cap.dollars" is missing; unknown setting "rules[1].agnt": did you mean "agent"?'
    ],
    [
      '{"concurrency":1e308,"maxQueued":0.5}',
      "concurrency: expected an integer from 1 to 1000000, got 1e+308; maxQueued: expected an integer from 0 to 1000000, got 0.5"
    ],
    ["[]", "the whole file: expected an object, got []"],
    ['{"maxHold":"4 moons"}', 'maxHold: expected a duration from 1 millisecond to 1 day, got "4 moons"'],
    ['{"maxHold":100000}', 'maxHold: expected a duration from 1 millisecond to 1 day, got "100000 seconds"'],
    ['{"rules":[{"cap":{"dollars":"x"}}]}', 'rules[0].cap.dollars: expected a number > 0, at most 1000000, got "x"']
  ])("names each setting of %s that is wrong, and the nearest that there is", (text, says) => {
    if (typeof says === "string") assert.strictEqual(said(text), says)
    else assert.match(said(text), says)
  })

  it.each([
    ["500 ms", 500],
    ["90 sec", 90_000],
    ["90s", 90_000],
    ["5 min", 300_000],
    ["5 mins", 300_000],
    ["1.5 Hours", 5_400_000],
    ["1 hour", 3_600_000],
    ["1 d", 86_400_000]
  ])("takes the duration %s, as people write it", (maxHold, millis) => {
    const config = Result.getOrThrow(decode(Config)({ maxHold }))
    assert.strictEqual(Duration.toMillis(Duration.fromInputUnsafe(config.maxHold!)), millis)
  })

  it.each([
    ["no JSON", "line 1, column 2: Unexpected token 'o'"],
    ['{\n "a" 1}', "line 2, column 6: Expected ':' after property name"],
    ['{\n "a": 1,\n}', "line 3, column 1: Expected double-quoted property name"],
    ['{\n "a": .5\n}', "line 2, column 7: Unexpected token '.'"],
    ['{"a": tru }', "line 1, column 10: Unexpected token ' '"],
    ['// no\n{"a": 1}', "line 1, column 1: Unexpected token '/'"],
    ['{"a":1', "line 1, column 7: Expected ',' or '}' after property value"],
    ["{\n", /^line 2, column 1: Expected property name/],
    ["", "line 1, column 1: Unexpected end of JSON input"]
  ])("says where %j is no JSON", (text, says) => {
    if (typeof says === "string") assert.strictEqual(said(text), says)
    else assert.match(said(text), says)
  })

  it("has short errors, whatever the file contains", { tags: "full" }, () => {
    const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`key-${index}`, 1]))
    assert.match(said(JSON.stringify(many)), /; and 990 more$/)
    assert.isBelow(said(JSON.stringify({ ["x".repeat(1e5)]: 1 })).length, 600)
    assert.isBelow(said(JSON.stringify({ port: "x".repeat(1e5) })).length, 600)
    assert.strictEqual(said("[".repeat(1e6)), "line 1, column 1000001: Unexpected end of JSON input")
    assert.match(said(`{"a": ${"[".repeat(1e5)}x`), /^line 1, column 100007: Unexpected token/)
  })

  it("quotes nothing that may be a secret", () => {
    for (const text of [
      '{"token": 77777}',
      '{"rules": [{"key": 77777, "headers": {"x-key": 77777}}]}',
      '{"rules": [{"headers": "77777"}], "keys": "77777", "credentials": "77777", "adminToken": "77777"}',
      '{"keys": [{"name": "a", "sha256": "77777"}, "77777"], "credentials": {"a": 77777}}',
      '{"token": "77777',
      '{"token": "77777" 77777}'
    ]) {
      assert.notInclude(said(text), "77777")
    }
  })
})
