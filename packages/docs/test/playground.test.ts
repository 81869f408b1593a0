/** The playground without a page: its settings, its runs and the test that it offers. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { parseHTML } from "linkedom"
import * as Lab from "../../lab/src/index.ts"
import { animationOf } from "../src/playground/animation.ts"
import { run, runs } from "../src/playground/runs.ts"
import {
  defaults,
  fromQuery,
  ranges,
  rivals,
  scenarioOptions,
  type Settings,
  toQuery,
  told,
  weathers
} from "../src/playground/settings.ts"
import { countsAt, timelineOf } from "../src/playground/timeline.ts"

const keys = <K extends string>(record: Readonly<Record<K, unknown>>) => Object.keys(record) as Array<K>

const anyOf = <K extends string>(record: Readonly<Record<K, unknown>>) => Schema.Literals(keys(record))
const within = ({ max, min }: { readonly min: number; readonly max: number }) =>
  Schema.Int.check(Schema.isBetween({ minimum: min, maximum: max }))

const anySettings = Schema.Struct({
  agents: within(ranges.agents),
  calls: within(ranges.calls),
  firstTokens: within(ranges.firstTokens),
  tokens: within(ranges.tokens),
  rate: within(ranges.rate),
  burst: within(ranges.burst),
  weather: anyOf(weathers),
  rival: anyOf(rivals),
  told: anyOf(told),
  seed: within({ min: 0, max: 1_000_000 })
})

describe("a link to the playground", () => {
  it.prop("keeps every setting", [anySettings], ([settings]) => {
    assert.deepStrictEqual(fromQuery(toQuery(settings)), settings)
  })

  it("is empty for the defaults", () => {
    assert.strictEqual(toQuery(defaults), "")
  })

  it("uses the default for an invalid value, and the nearest allowed number for one out of range", () => {
    assert.deepStrictEqual(fromQuery("agents=&rate=fast&weather=toString&rival=none&told=&seed=-1"), {
      ...defaults,
      seed: 0
    })
    assert.strictEqual(fromQuery("agents=1000000").agents, ranges.agents.max)
    assert.strictEqual(fromQuery("calls=0.4").calls, 1)
  })
})

describe("a run of the playground", () => {
  it.effect("is the lab's run of the same scenario and strategy", () =>
    Effect.gen(function* () {
      const settings: Settings = { ...defaults, agents: 7, calls: 3, rate: 50_000, weather: "outage-at-start", seed: 4 }
      const both = yield* runs(settings)
      for (const timeline of [both.rival, both.floodgate]) {
        const strategies = Lab.strategies.filter(({ name }) => name === timeline.result.strategy)
        const [again] = yield* Lab.race(Lab.scenario(settings.weather, scenarioOptions(settings)), strategies)
        assert.deepStrictEqual(timeline.result, again!.result)
      }
    })
  )

  it.effect("ends with the counts of its result, whoever loses calls", () =>
    Effect.gen(function* () {
      for (const rival of keys(rivals)) {
        const timeline = yield* run(defaults, rival)
        const { answered, inFlight, lost, rejected } = countsAt(timeline, timeline.endMillis)
        const { failedCalls, rejections } = timeline.result
        assert.deepStrictEqual(
          { answered, rejected, lost: Math.round(lost), inFlight },
          { answered: timeline.calls - failedCalls, rejected: rejections, lost: failedCalls, inFlight: 0 }
        )
        assert.deepStrictEqual(countsAt(timeline, -1), { answered: 0, rejected: 0, lost: 0, inFlight: 0 })
      }
    })
  )

  it.effect("has bars of each agent in order of time, without overlaps", () =>
    Effect.gen(function* () {
      const { floodgate, rival } = yield* runs({ ...defaults, weather: "flaky", told: "floodgate" })
      for (const { rows } of [floodgate, rival]) {
        for (const { bars } of rows) {
          bars.slice(1).forEach(({ from }, index) => assert.isAtLeast(from, bars[index]!.to))
        }
      }
    })
  )

  it("counts a race that its bound stopped as not finished", () => {
    const result = { makespanSeconds: 1, failedCalls: 1, finished: false } as Lab.RaceRun["result"]
    const { endMillis, rows } = timelineOf({
      result,
      calls: [],
      agents: [{ name: "a", startsAtMillis: 0, endedAt: undefined, failed: false }],
      levels: [],
      log: []
    })
    assert.deepStrictEqual([endMillis, rows[0]!.bars, rows[0]!.lostAt], [1_000, [], undefined])
  })
})

describe("the animation", () => {
  it.effect("is one SVG document that ends with the results, and shows only them without motion", () =>
    Effect.gen(function* () {
      const timeline = yield* run(defaults, "sdk-2")
      const { failedCalls, makespanSeconds, rejections } = timeline.result
      const svg = animationOf([{ title: "a < b", timeline }], "light")
      const { window } = parseHTML(`<html><body>${svg}</body></html>`)
      const textsOf = (selector: string) =>
        Array.from(window.document.querySelectorAll(selector), ({ textContent }) => textContent)
      assert.include(textsOf("text"), "a < b")
      assert.deepStrictEqual(textsOf("text.last"), [
        `${60 - failedCalls} of 60 answered, ${rejections} × 429, ${failedCalls} lost, after ${makespanSeconds.toFixed(1)} s`
      ])
      assert.isAbove(textsOf("text.step").length, 5)
      assert.include(svg, "prefers-reduced-motion:reduce")
    })
  )
})
