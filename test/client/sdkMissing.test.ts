import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { vi } from "vitest"

// What Node says where the package is not installed; `npm run pack:check` has projects without it.
vi.mock("@anthropic-ai/sdk", () => {
  throw Object.assign(new Error("Cannot find package '@anthropic-ai/sdk'"), { code: "ERR_MODULE_NOT_FOUND" })
})

const layers = {
  "LlmClient.layer": LlmClient.layer({ apiKey: Redacted.make("sk-secret") }),
  "LlmClient.layerConfig": LlmClient.layerConfig()
}

describe("without the SDK", () => {
  for (const [operation, layer] of Object.entries(layers)) {
    it.effect(`${operation} fails with an error that names the command`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Layer.build(Layer.provide(layer, Budget.layer())))
        assert.instanceOf(error, LlmClient.SdkMissing)
        assert.include(error.message, operation)
        assert.include(error.message, "npm install @anthropic-ai/sdk")
        assert.isDefined(error.cause)
      })
    )
  }
})
