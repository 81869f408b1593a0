/** What `floodgate run` sends to an OpenTelemetry collector. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Path from "node:path"
import * as Process from "../../../gateway/test/support/command.ts"
import { collector } from "../../../../test/support/otlp.ts"

const { run } = Process.commandAt(Path.resolve(import.meta.dirname, "../../src/bin.ts"))

describe("telemetry", () => {
  it.live("of a run is one trace of all its calls, without documents and prompts", () =>
    Effect.gen(function* () {
      const sink = yield* collector()
      const { inside } = yield* Process.folder
      const prompt = "CaNaRyPrompt7Zq94xW2fKd81"
      const args = ["run", "docs", "--prompt", prompt, "--agents", "1", "--quiet"]
      const { code, stderr } = yield* run(inside, args, { OTEL_EXPORTER_OTLP_ENDPOINT: sink.url })
      assert.strictEqual(code, 0, stderr)
      const spans = sink.spans()
      const root = spans.find(({ name }) => name === "floodgate run")
      const calls = spans.filter(({ name }) => name.startsWith("chat "))
      assert.isAtLeast(calls.length, 2)
      for (const { service, traceId } of calls) assert.deepStrictEqual([service, traceId], ["floodgate", root!.traceId])
      assert.isTrue(sink.metrics().some(({ name }) => name === "floodgate_calls"))
      for (const { text } of sink.requests) {
        assert.notInclude(text, prompt)
        assert.notInclude(text, "The first document.")
      }
    })
  )
})
