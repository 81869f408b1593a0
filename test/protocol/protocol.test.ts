import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { type Answer, type Protocol, protocols as known } from "floodgate/protocol"
import { makeSseParser } from "../../src/protocol/sse.ts"
import { mulberry } from "../support/random.ts"
import { anthropicStream, chatStream, geminiStream, responsesStream } from "./fixtures.ts"
import { answerOf, bytesOf, piecesOf, randomPieces, singly } from "./reading.ts"
import { emptyAnswer, match, usageOf } from "../../src/protocol/protocol.ts"
import { sized } from "../support/size.ts"

const { anthropic, gemini, geminiEmbeddings, openaiChat, openaiEmbeddings, openaiRequests, openaiResponses } = known

const protocols = [anthropic, openaiRequests, openaiChat, openaiResponses, openaiEmbeddings, gemini, geminiEmbeddings]
const streams: ReadonlyArray<readonly [string, Protocol, string]> = [
  ["anthropic", anthropic, anthropicStream],
  ["openaiChat", openaiChat, chatStream],
  ["openaiResponses", openaiResponses, responsesStream],
  ["gemini", gemini, geminiStream]
]

const find = (url: string, method = "POST") => {
  const found = match(protocols, method, url)
  return found && `${found.protocol.name} ${found.route.operation} ${found.route.path}`
}

/** Everything in an answer that is not finite, bounded and consistent. */
const problemsOf = (answer: Answer): ReadonlyArray<string> => {
  const amounts = [...Object.values(usageOf(answer) ?? {}), answer.uncounted]
  const names = [answer.id, answer.model, answer.finishReason, answer.continuation]
  return [
    ...amounts.filter((value) => !(value >= 0 && value <= 1e13)).map((value) => `amount ${value}`),
    ...names.filter((name) => (name?.length ?? 0) > 512).map((name) => `name of ${name?.length}`)
  ]
}

describe("match", () => {
  it.each([
    ["/v1/messages?beta=true", "anthropic-messages generate /v1/messages"],
    ["http://localhost:8788/v1/messages", "anthropic-messages generate /v1/messages"],
    ["https://api.anthropic.com/messages", "anthropic-messages generate /v1/messages"],
    ["//v1//messages/", "anthropic-messages generate /v1/messages"],
    ["/v1/v1/v1/messages/count_tokens", "anthropic-messages countTokens /v1/messages/count_tokens"],
    ["https://res.services.ai.azure.com/anthropic/v1/messages", "anthropic-messages generate /anthropic/v1/messages"],
    ["https://evil.example/v1/v1/chat/completions#x", "openai-chat generate /v1/chat/completions"],
    ["/chat/completions", "openai-chat generate /v1/chat/completions"],
    ["/openai/v1/chat/completions", "openai-chat generate /openai/v1/chat/completions"],
    ["/v1/v1/responses", "openai-responses generate /v1/responses"],
    ["/responses", "openai-responses generate /v1/responses"],
    ["/v1beta/models/m:generateContent?key=k", "gemini generate /v1beta/models/m:generateContent"],
    ["/v1beta/v1beta/models/m:streamGenerateContent?alt=sse", "gemini stream /v1beta/models/m:streamGenerateContent"],
    ["/v1/v1beta/models/m:generateContent", "gemini generate /v1beta/models/m:generateContent"],
    ["/v1/embeddings", "openai-embeddings embed /v1/embeddings"],
    ["/embeddings", "openai-embeddings embed /v1/embeddings"],
    ["/v1/v1/%65mbeddings", "openai-embeddings embed /v1/embeddings"],
    ["/v1beta/openai/embeddings", "openai-embeddings embed /v1beta/openai/embeddings"],
    ["/openai/deployments/d/embeddings?api-version=1", "openai-embeddings embed /openai/deployments/d/embeddings"],
    ["/v1/completions", "openai-requests generate /v1/completions"],
    ["/completions", "openai-requests generate /v1/completions"],
    ["/v1/v1/images/generation%73", "openai-requests generate /v1/images/generations"],
    ["/audio/speech", "openai-requests generate /v1/audio/speech"],
    ["/openai/deployments/d/audio/speech", "openai-requests generate /openai/deployments/d/audio/speech"],
    ["/v1/moderations", "openai-requests generate /v1/moderations"],
    // Uploads have other limits.
    ["/v1/images/edits", "openai-chat passThrough /v1/images/edits"],
    ["/v1/audio/transcriptions", "openai-chat passThrough /v1/audio/transcriptions"],
    // Ollama's own route takes another body.
    ["/api/embeddings", undefined],
    ["/v1beta/models/m:embedContent", "gemini-embeddings embed /v1beta/models/m:embedContent"],
    ["/models/m:batchEmbedContents", "gemini-embeddings embed /v1beta/models/m:batchEmbedContents"],
    ["/v1beta/models/m:asyncBatchEmbedContent", "gemini passThrough /v1beta/models/m:asyncBatchEmbedContent"],
    ["/v1/threads/t/messages", "openai-chat passThrough /v1/threads/t/messages"],
    ["/v1/models/m:generateContent", "gemini generate /v1/models/m:generateContent"]
  ])("finds the call %s", (url, expected) => {
    assert.strictEqual(find(url), expected)
  })

  it.each([
    ["/v1/models?limit=1000", "anthropic-messages passThrough /v1/models"],
    ["/v1/completions", "openai-requests passThrough /v1/completions"],
    ["/v1/batches/b_1", "openai-chat passThrough /v1/batches/b_1"],
    ["/v1beta/models", "gemini passThrough /v1beta/models"]
  ])("finds %s", (url, expected) => {
    assert.strictEqual(find(url, "GET"), expected)
  })

  it("takes methods in any case, and the first protocol that recognises a path", () => {
    assert.strictEqual(find("/v1/messages", "post"), find("/v1/messages"))
    assert.strictEqual(match([openaiChat, anthropic], "GET", "/v1/models")?.protocol.name, "openai-chat")
    assert.isUndefined(match([], "POST", "/v1/messages"))
  })

  it.each(["", "/", "/weather", "http://", "not a url", "https://[::1", "/api/hello", "/%"])(
    "does not match %j",
    (url) => {
      assert.isUndefined(match(protocols, "POST", url))
    }
  )

  it("matches any path in linear time", () => {
    for (const part of ["/v1", "/v11111", "/messages", "/", "/models/", ":a", "/v1/models", "%2F", "/openai"]) {
      const path = `/${part.repeat(20_000)}x`
      const start = process.cpuUsage()
      match(protocols, "POST", path)
      assert.isBelow(process.cpuUsage(start).user, 1_000_000, part)
    }
  })

  const piece = Schema.Union([
    Schema.String,
    Schema.Literals(["/", "/v1", "/messages", "/models", ":generateContent", "?", "#", "..", "%", "%2e", "chat", "//"])
  ])
  it.prop("never throws", { pieces: Schema.Array(piece) }, ({ pieces }) => {
    const found = match(protocols, "POST", `/${pieces.join("")}`)
    assert.isTrue(found === undefined || found.route.path.startsWith("/"))
  })
})

describe("usageOf", () => {
  it("counts what the provider did, and estimates the rest of a broken stream", () => {
    const answer = { ...emptyAnswer, counts: { inputTokens: 10, outputTokens: 1 }, uncounted: 27 }
    assert.deepStrictEqual(usageOf(answer), {
      inputTokens: 10,
      cacheCreationTokens: 0,
      cacheReadTokens: 0,
      outputTokens: 11
    })
    assert.isUndefined(usageOf(emptyAnswer))
    assert.isUndefined(usageOf({ ...emptyAnswer, started: true, complete: true, uncounted: 27 }))
    assert.isUndefined(usageOf({ ...emptyAnswer, started: true, complete: true, counts: { inputTokens: 10 } }))
    assert.strictEqual(usageOf({ ...emptyAnswer, started: true, uncounted: 27 })?.outputTokens, 10)
  })
})

describe.each(streams)("a stream of %s", (_, protocol, text) => {
  const bytes = bytesOf(text)
  const whole = answerOf(protocol, [bytes])

  it("has the same meaning wherever it is split", () => {
    assert.isTrue(whole.complete)
    assert.deepStrictEqual(answerOf(protocol, singly(bytes)), whole)
    for (let cut = 0; cut <= bytes.length; cut++) {
      assert.deepStrictEqual(answerOf(protocol, piecesOf(bytes, [cut])), whole, `cut at ${cut}`)
    }
  })

  it("has the same meaning with any line ends, and with keep-alive events in between", () => {
    for (const newline of ["\n", "\r\n", "\r"]) {
      const spelled = text.replaceAll(/\r?\n/g, newline)
      assert.deepStrictEqual(answerOf(protocol, [bytesOf(spelled)]), whole)
    }
    const kept = text.replaceAll(/(\r?\n){2}/g, (end) => end + protocol.keepAlive.stream)
    assert.deepStrictEqual(answerOf(protocol, [bytesOf(protocol.keepAlive.stream + kept)]), whole)
  })

  it("is complete only at its end, and never loses information on the way", () => {
    const parser = makeSseParser()
    let answer = emptyAnswer
    let partial = emptyAnswer
    for (const piece of singly(bytes)) {
      for (const event of parser.feed(piece)) {
        const next = protocol.observe(answer, event)
        assert.isTrue(!answer.started || next.started)
        assert.isTrue(!answer.complete || next.complete)
        assert.deepStrictEqual(problemsOf(next), [])
        answer = next
        if (!next.complete) partial = next
      }
    }
    assert.deepStrictEqual(answer, whole)
    assert.isTrue(partial.started)
    assert.isAbove(usageOf(partial)?.outputTokens ?? 0, 0)
  })

  it("never throws and stays bounded, whatever is done to its bytes", () => {
    const random = mulberry(42)
    const pick = (below: number): number => Math.floor(random() * below)
    for (let round = 0; round < sized(50, 500); round++) {
      const mutated = [...bytes]
      for (let change = pick(8); change >= 0; change--) {
        const at = pick(mutated.length)
        const length = pick(60)
        if (random() < 0.3) mutated[at] = pick(256)
        else if (random() < 0.5) mutated.splice(at, length)
        else mutated.splice(at, 0, ...mutated.slice(pick(mutated.length)).slice(0, length))
      }
      assert.deepStrictEqual(problemsOf(answerOf(protocol, randomPieces(Uint8Array.from(mutated), random))), [])
    }
  })

  it("never throws on random bytes", () => {
    const random = mulberry(43)
    for (let round = 0; round < sized(30, 300); round++) {
      const garbage = Uint8Array.from({ length: 400 }, () => (random() < 0.2 ? 10 : Math.floor(random() * 256)))
      assert.deepStrictEqual(problemsOf(answerOf(protocol, randomPieces(garbage, random))), [])
    }
  })
})

/** Names and values that have a meaning in one of the protocols, in any place. */
const names = `type error message delta usage choices response candidates content parts text model messages input tools
  metadata user_id thread stream max_tokens iterations prompt_tokens prompt_tokens_details input_tokens usageMetadata
  promptTokenCount status code details violations quotaId quotaValue retryDelay contents generationConfig __proto__`.split(
  /\s+/
)
const words = `x error message_start content_block_delta message_delta continue failed response.completed PerDay 429
  response.output_text.delta PerMinute 16s { {"session_id":1}`.split(/\s+/)
const values = [...words, "", "x".repeat(2_000), null, true, false, 0, 1, 429, -1, 1.5, 1e13, 1e300]

const randomJson = (random: () => number, depth: number): unknown => {
  const pick = <A>(list: ReadonlyArray<A>): A => list[Math.floor(random() * list.length)]!
  if (depth === 0 || random() < 0.3) return pick(values)
  const length = Math.floor(random() * 5)
  if (random() < 0.3) return Array.from({ length }, () => randomJson(random, depth - 1))
  return Object.fromEntries(Array.from({ length: length + 3 }, () => [pick(names), randomJson(random, depth - 1)]))
}

describe.each(protocols.map((protocol) => [protocol.name, protocol] as const))("%s", (_, protocol) => {
  const random = mulberry(44)
  const bodies = Array.from({ length: sized(100, 1_000) }, () => randomJson(random, 5))
  const header = (name: string) => (name === "retry-after" ? "16" : undefined)

  it("describes any JSON with finite sizes, or not at all", () => {
    for (const body of bodies) {
      for (const operation of ["generate", "stream"] as const) {
        const description = protocol.describe(body, { operation, path: "/" })
        if (description === undefined) continue
        assert.isTrue(Number.isFinite(description.bytes) && description.bytes >= description.textBytes)
        const agent = protocol.agentOf(body, header)
        assert.isTrue(agent === undefined || (agent !== "" && agent.length <= 512))
      }
    }
  })

  it("reads any JSON as an answer or an event without a throw", () => {
    for (const body of bodies) {
      assert.deepStrictEqual(problemsOf(protocol.answer(body)), [])
      for (const name of ["error", "ping", undefined]) {
        const answer = protocol.observe(emptyAnswer, { name, data: JSON.stringify(body) })
        assert.deepStrictEqual(problemsOf(answer), [])
      }
    }
  })

  it("reads any JSON as a failure with bounded words and times", () => {
    bodies.forEach((body, index) => {
      const status = [200, 302, 400, 413, 429, 500, 529, 999][index % 8]!
      for (const given of [body, JSON.stringify(body), undefined]) {
        const failure = protocol.failure({ status, header, body: given }, { now: 0 })
        assert.isAtMost(failure.detail?.length ?? 0, 300)
        assert.isTrue((failure.retryAfterMillis ?? 0) >= 0 && (failure.retryAfterMillis ?? 0) <= 3_600_000)
        assert.isTrue(Number.isFinite(failure.resumesAt ?? 0))
        protocol.limits({ status, header, body: given })
      }
    })
  })
})
