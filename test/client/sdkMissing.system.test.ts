import { assert, describe, it } from "@effect/vitest"
import { runWithout } from "../support/withoutPackage.ts"

const program = `import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Floodgate from "floodgate"
import { ProviderSim } from "floodgate/testing"
const { Budget, LlmClient } = Floodgate
const failureOf = (layer) => Effect.flip(Layer.build(Layer.provide(layer, Budget.layer())))
const params = { model: "claude-sonnet-5", max_tokens: 5, messages: [{ role: "user", content: "Hello" }] }
const program = Effect.gen(function* () {
  const missing = yield* failureOf(LlmClient.layer({ apiKey: Redacted.make("sk-secret") }))
  const config = yield* failureOf(LlmClient.layerConfig())
  const own = LlmClient.layerProvider().pipe(Layer.provide(Budget.layer()), Layer.provide(ProviderSim.layer()))
  const { role } = yield* Effect.provide(LlmClient.create(params), own)
  return [missing, config].map((error) => ({ is: error instanceof LlmClient.SdkMissing, ...error, message: error.message }))
    .concat(role)
})
console.log(JSON.stringify(await Effect.runPromise(Effect.scoped(program))))`

describe("without the SDK", () => {
  it("layers over the SDK fail with an error that names the command, and everything else works", () => {
    const { stderr, stdout } = runWithout("@anthropic-ai/sdk", program)
    assert.match(stdout, /^\[/, stderr)
    const [missing, config, role] = JSON.parse(stdout) as [Record<string, unknown>, Record<string, unknown>, string]
    for (const [operation, error] of Object.entries({ "LlmClient.layer": missing, "LlmClient.layerConfig": config })) {
      assert.isTrue(error["is"])
      assert.strictEqual(
        error["message"],
        `${operation} needs the package @anthropic-ai/sdk, which could not be loaded: npm install @anthropic-ai/sdk`
      )
      assert.notInclude(JSON.stringify(error), "sk-secret")
    }
    assert.strictEqual(role, "assistant")
  })
})
