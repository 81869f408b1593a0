/** A test file that reproduces a run of the playground. Pure. */
import { scenarioOptions, type Settings } from "./settings.ts"
import type { Timeline } from "./timeline.ts"

/** A vitest file that runs the lab with the same settings, and expects the same figures. */
export const testOf = (settings: Settings, { result }: Timeline): string => `import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Race, Scenarios, Strategies } from "@floodgate/lab"

it.effect("${result.strategy} in ${settings.weather}", () =>
  Effect.gen(function* () {
    const scenario = Scenarios.byName("${settings.weather}", ${JSON.stringify(scenarioOptions(settings))})!
    const strategy = Strategies.all.find(({ name }) => name === "${result.strategy}")!
    const { result } = yield* Race.run(scenario, strategy)
    assert.strictEqual(result.makespanSeconds, ${result.makespanSeconds})
    assert.strictEqual(result.failedCalls, ${result.failedCalls})
    assert.strictEqual(result.rejections, ${result.rejections})
  })
)
`
