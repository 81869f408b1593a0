/**
 * Another program uses half of the limit, unseen: 64 agents of 20 calls of lognormal size against 400,000 input tokens a
 * minute, a continuous bucket at the provider, rejections free. The floor is what the neighbour leaves.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Limits from "floodgate/Limits"
import type { ProviderSim } from "floodgate/testing"
import { run } from "../support/neighbour.ts"
import { some } from "../support/size.ts"

const perMinute = 400_000
const share = 0.5

const measure = Effect.fnUntraced(function* (
  headers: ProviderSim.Options["headers"],
  burst: number,
  limits: Limits.Limits
) {
  const measured = yield* run({
    sim: {
      limits: { inputTokens: { perMinute, window: "bucket", burst } },
      headers,
      neighbour: { share },
      rejections: "free"
    },
    limits,
    agents: 64,
    calls: 20,
    tokens: 4_000,
    sigma: 0.8,
    seed: 1
  })
  const floor = (measured.total - burst) / ((perMinute / 60_000) * (1 - share))
  return { makespan: measured.millis / floor, rejected: measured.rejected / measured.accepted }
})

const bursts = { "a minute's worth": perMinute, "a tenth of a minute": perMinute / 10 }
const locals = (burst: number) =>
  ({
    "limits as they are written": { inputTokens: { perMinute } },
    "the provider's bucket": { inputTokens: { perMinute, window: "bucket", burst } }
  }) as const

describe("Budget, with a neighbour that takes half", () => {
  for (const [burstName, burst] of some(Object.entries(bursts), 2)) {
    for (const [name, limits] of some(Object.entries(locals(burst)), 2)) {
      for (const headers of ["rounded", "exact"] as const) {
        it.effect(
          `stays within 1.02 of the floor and 3 % of rejections: ${headers} headers, ${burstName}, ${name}`,
          () =>
            Effect.gen(function* () {
              const { makespan, rejected } = yield* measure(headers, burst, limits)
              assert.isAtMost(makespan, 1.02)
              assert.isAtMost(rejected, 0.03)
            })
        )
      }
      // Without headers, a larger share is tried every few seconds, which is about ten calls here.
      it.effect(`stays within 1.02 of the floor and 15 % of rejections: no headers, ${burstName}, ${name}`, () =>
        Effect.gen(function* () {
          const { makespan, rejected } = yield* measure("none", burst, limits)
          assert.isAtMost(makespan, 1.02)
          assert.isAtMost(rejected, 0.15)
        })
      )
    }
  }
})
