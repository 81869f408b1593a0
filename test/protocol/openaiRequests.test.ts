import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"
import { answerOfText } from "./reading.ts"

const { openaiRequests } = protocols

const described = (path: string, body: unknown) => {
  const route = openaiRequests.match("POST", path)
  return route && openaiRequests.describe(body, route)
}

describe("openaiRequests", () => {
  it("measures the prompts of completions, and multiplies their output", () => {
    const of = (body: object) => described("/v1/completions", { model: "m", max_tokens: 10, ...body })
    assert.deepInclude(of({ prompt: "Grüße", suffix: "!" }), { model: "m", bytes: 8, maxTokens: 10, stream: false })
    assert.deepInclude(of({ prompt: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }), { bytes: 27, maxTokens: 10 })
    assert.deepInclude(of({ prompt: ["one", "two"], n: 2, best_of: 3 }), { bytes: 6, maxTokens: 60, choices: 6 })
    assert.isUndefined(of({ prompt: "x", max_tokens: undefined })?.maxTokens)
    assert.isUndefined(of({ prompt: ["one", "two"] })?.requests)
    assert.isTrue(of({ prompt: "x", stream: true })?.needsUsageRequest)
    assert.isFalse(of({ prompt: "x", stream: true, stream_options: { include_usage: true } })?.needsUsageRequest)
  })

  it("knows that nothing limits the output of images and speech, and that a moderation has none", () => {
    const image = { model: "gpt-image-1", prompt: "A gate", n: 3 }
    const unlimited = { maxTokens: undefined, choices: 3, bytes: 6 }
    assert.deepInclude(described("/v1/images/generations", image), unlimited)
    const speech = { model: "tts-1", input: "Hello", instructions: "Slowly", voice: "a" }
    assert.deepInclude(described("/v1/audio/speech", speech), { bytes: 11, maxTokens: undefined, binary: true })
    const streamed = described("/v1/audio/speech", { ...speech, stream_format: "sse" })
    assert.deepInclude(streamed, { binary: false, stream: true })
    const input = [{ type: "text", text: "Hello" }]
    assert.deepInclude(described("/v1/moderations", { model: "m", input }), { maxTokens: 0, stream: false })
  })

  it("counts a body of no known form by its size, and takes the model of a deployment from the path", () => {
    assert.strictEqual(described("/v1/moderations", { model: "m", text: "x".repeat(1_000) })?.bytes, 1_023)
    assert.isUndefined(described("/v1/moderations", []))
    const path = "/openai/deployments/mine/images/generations"
    assert.strictEqual(described(path, { prompt: "x", model: "other" })?.model, "mine")
  })

  it("reads the usage of completions and of images, and leaves it unknown where there is none", () => {
    const { answer } = openaiRequests
    const completion = { choices: [{ text: "Hi", finish_reason: "stop" }] }
    const counted = answer({ ...completion, usage: { prompt_tokens: 5, completion_tokens: 1 } })
    assert.deepInclude(counted, { finishReason: "stop", complete: true })
    assert.deepInclude(counted.counts, { inputTokens: 5, outputTokens: 1 })
    assert.deepInclude(answer({ data: [], usage: { input_tokens: 9, output_tokens: 272 } }).counts, {
      inputTokens: 9,
      outputTokens: 272
    })
    assert.deepStrictEqual(answer({ results: [] }).counts, {})
    assert.deepInclude(answer({ error: { message: "no" } }), { complete: false, started: false })
  })

  const eventsOf = (...events: ReadonlyArray<object>): string =>
    events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("")

  it("reads streams of completions, and estimates the output of one that is cut off", () => {
    const text = eventsOf({ choices: [{ text: "x".repeat(27), finish_reason: null }] })
    const cut = answerOfText(openaiRequests, text)
    assert.deepInclude(cut, { started: true, complete: false, uncounted: 27 })
    const usage = { prompt_tokens: 5, completion_tokens: 8 }
    const end = eventsOf({ choices: [{ text: "", finish_reason: "stop" }] }, { choices: [], usage })
    const whole = answerOfText(openaiRequests, `${text}${end}data: [DONE]\n\n`)
    assert.isTrue(whole.complete)
    assert.deepInclude(whole.counts, { inputTokens: 5, outputTokens: 8 })
  })

  it.each([
    ["speech", { type: "speech.audio.delta", audio: "AA" }, "speech.audio.done"],
    ["images", { type: "image_generation.partial_image", b64_json: "AA" }, "image_generation.completed"]
  ])("reads streams of %s", (_, part, type) => {
    assert.deepInclude(answerOfText(openaiRequests, eventsOf(part)), { started: true, complete: false })
    const usage = { input_tokens: 9, output_tokens: 272 }
    const whole = answerOfText(openaiRequests, eventsOf(part, { type, usage }))
    assert.isTrue(whole.complete)
    assert.deepInclude(whole.counts, { inputTokens: 9, outputTokens: 272 })
    const failed = answerOfText(openaiRequests, eventsOf(part, { error: { message: "no" } }))
    assert.isDefined(failed.error)
  })
})
