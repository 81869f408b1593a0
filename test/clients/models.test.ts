/** The retries of the AI SDK are modelled in the lab: they come when the AI SDK's own do. */
import { createAnthropic } from "@ai-sdk/anthropic"
import { assert, describe, it } from "@effect/vitest"
import { generateText } from "ai"
import * as Effect from "effect/Effect"
import { attemptsOfClient, attemptsOfModel, failures } from "../../packages/lab/test/support/attempts.ts"

describe("the retries of the AI SDK, modelled", () => {
  for (const [what, answers] of failures) {
    it.effect(`ai-sdk sends when the AI SDK does, after ${what}`, () =>
      Effect.gen(function* () {
        const theirs = yield* Effect.promise(() =>
          attemptsOfClient(answers, (fetch) => {
            const model = createAnthropic({ apiKey: "test", fetch })("claude-sonnet-5")
            return generateText({ model, prompt: "hello" })
          })
        )
        assert.deepStrictEqual(yield* attemptsOfModel("ai-sdk", answers), theirs)
        assert.strictEqual(theirs.length, what.startsWith("what cannot") ? 1 : 3)
      })
    )
  }
})
