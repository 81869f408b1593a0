/** A test file that reproduces a run of the playground. Pure. */
import { scenarioOptions, type Settings } from "./settings.ts"
import type { Timeline } from "./timeline.ts"

/** A vitest file that runs the lab with the same settings, and expects the same figures. */
export const testOf = (settings: Settings, { result }: Timeline): string => `import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Lab from "@floodgate/lab"

it.effect("${result.strategy} in ${settings.weather}", () =>
  Effect.gen(function* () {
    const scenario = Lab.scenario("${settings.weather}", ${JSON.stringify(scenarioOptions(settings))})
    const strategies = Lab.strategies.filter(({ name }) => name === "${result.strategy}")
    const [run] = yield* Lab.race(scenario, strategies)
    assert.strictEqual(run!.result.makespanSeconds, ${result.makespanSeconds})
    assert.strictEqual(run!.result.failedCalls, ${result.failedCalls})
    assert.strictEqual(run!.result.rejections, ${result.rejections})
  })
)
`
