import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { inspect } from "node:util"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { error, serve } from "../support/httpProvider.ts"
import { params } from "../support/scriptedProvider.ts"
import { recordingTracer } from "../support/spans.ts"

describe("the span of a call over real HTTP", () => {
  it.live("has no key, even if the provider repeats it in an error", () => {
    const { spans, tracer } = recordingTracer(({ name }) => name.startsWith("chat"))
    const key = "sk-ant-canary-0123456789"
    return Effect.gen(function* () {
      const { url } = yield* serve(() => error(401, "authentication_error", {}, undefined, `invalid key: ${key}`))
      const client = LlmClient.layer({ apiKey: Redacted.make(key), baseUrl: url })
      yield* Effect.exit(Effect.provide(LlmClient.create(params), client))
      assert.strictEqual(spans.length, 1)
      const [span] = spans
      assert.notInclude(inspect([Object.fromEntries(span!.attributes), span!.status], { depth: 20 }), key)
      assert.strictEqual(span!.attributes.get("error.type"), "AccessDenied")
    }).pipe(Effect.provide(Budget.layerUnlimited), Effect.withTracer(tracer))
  })
})
