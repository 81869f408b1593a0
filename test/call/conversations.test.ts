import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"

const call = { model: "m", bytes: 270, maxTokens: 10 }

/** Runs a turn of a conversation, and returns the input that it reserved. */
const turn = Effect.fnUntraced(function* (
  more: Partial<Governor.Call>,
  response: NonNullable<Governor.Outcome<unknown>["response"]>,
  inputTokens = 8_000
) {
  const governor = yield* Governor.Governor
  const attempt = ({ reservation }: Governor.Ticket) =>
    Effect.succeed({
      value: reservation.charge.inputTokens!,
      actual: { inputTokens, cacheCreationTokens: 1_000, outputTokens: 10 },
      response
    })
  return yield* governor.run({ ...call, ...more }, attempt)
})

const governed = Layer.fresh(
  Layer.provide(Governor.layer(), Budget.layer({ limits: { inputTokens: { perMinute: 1_000_000 } } }))
)

describe("a call that continues a stored conversation", () => {
  it.effect("reserves the whole conversation and what is new", () =>
    Effect.gen(function* () {
      yield* turn({}, { continuation: "msg_1" })
      // 9,000 tokens were read and 10 written before; 270 bytes are 100 tokens.
      const known = { ...call, inputTokens: 9_110 }
      const governor = yield* Governor.Governor
      const whole = ({ reservation }: Governor.Ticket) => Effect.succeed({ value: reservation.charge.inputTokens! })
      const expected = yield* governor.run(known, whole)
      assert.strictEqual(yield* turn({ continues: "msg_1", stored: true }, {}), expected)
      assert.strictEqual(expected, 9_110)
    }).pipe(Effect.provide(governed))
  )

  it.effect("is estimated by its size if the conversation is not known", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* turn({ continues: "msg_0", stored: true }, {}), 100)
    }).pipe(Effect.provide(governed))
  )

  it.effect("does not change the tokens per byte of later calls", () =>
    Effect.gen(function* () {
      yield* turn({ continues: "msg_0", stored: true }, {}, 50_000)
      assert.strictEqual(yield* turn({}, {}, 80), 100)
      yield* turn({}, {}, 50_000)
      assert.isAbove(yield* turn({}, {}), 10_000)
    }).pipe(Effect.provide(governed))
  )

  it.effect(
    "is forgotten after 25,000 others",
    () =>
      Effect.gen(function* () {
        yield* turn({ stored: true }, { continuation: "first" })
        const another = (n: number) => turn({ stored: true }, { continuation: `msg_${n}` }, 1)
        for (let n = 0; n < 24_999; n++) yield* another(n)
        const known = yield* turn({ continues: "first", stored: true }, {}, 1)
        yield* another(24_999)
        const forgotten = yield* turn({ continues: "first", stored: true }, {}, 1)
        assert.deepStrictEqual([known, forgotten], [9_110, 100])
      }).pipe(
        Effect.provide(Layer.provide(Governor.layer(), Budget.layer({ limits: { inputTokens: { total: 1e9 } } })))
      ),
    { tags: "full" }
  )
})
