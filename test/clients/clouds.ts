/**
 * Makes calls with Bedrock and Vertex AI as places of `LlmClient`, through Anthropic's packages for them and in front of the simulated
 * provider, and prints what became of each. It is a program of its own, because the test runner resolves AWS's packages as a bundler
 * does.
 */
import AnthropicBedrock from "@anthropic-ai/bedrock-sdk"
import AnthropicVertex from "@anthropic-ai/vertex-sdk"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Anthropic from "floodgate/providers/Anthropic"
import { ProviderServer } from "floodgate/testing/server"
import * as assert from "node:assert"
import { crc32 } from "node:zlib"
import { serve } from "../support/httpServer.ts"

/** A message of AWS's event stream. Its only headers are of the type string. */
const frame = (headers: Readonly<Record<string, string>>, payload: string): Buffer => {
  const named = Object.entries(headers).map(([name, value]) => {
    const length = Buffer.alloc(2)
    length.writeUInt16BE(value.length)
    return Buffer.concat([Buffer.from([name.length]), Buffer.from(name), Buffer.from([7]), length, Buffer.from(value)])
  })
  const head = Buffer.concat(named)
  const body = Buffer.from(payload)
  const prelude = Buffer.alloc(12)
  prelude.writeUInt32BE(16 + head.length + body.length, 0)
  prelude.writeUInt32BE(head.length, 4)
  prelude.writeUInt32BE(crc32(prelude.subarray(0, 8)), 8)
  const message = Buffer.concat([prelude, head, body])
  const check = Buffer.alloc(4)
  check.writeUInt32BE(crc32(message))
  return Buffer.concat([message, check])
}

/** An event of Anthropic's as a chunk of Bedrock's. */
const chunkOf = (data: string): Buffer =>
  frame(
    { ":message-type": "event", ":event-type": "chunk", ":content-type": "application/json" },
    JSON.stringify({ bytes: Buffer.from(data).toString("base64") })
  )

/** What a cloud's path says about a call: the model, and whether its answer is streamed. */
const ofPath: Readonly<Record<"bedrock" | "vertex", RegExp>> = {
  bedrock: /^\/model\/(?<model>[^/]+)\/invoke(?<stream>-with-response-stream)?$/,
  vertex: /\/publishers\/anthropic\/models\/(?<model>[^/:]+):(?<stream>streamR|r)awPredict$/
}

/** A cloud in its own shape, in front of a simulated provider. `fails` makes it answer with its own rejection. */
const cloud = Effect.fnUntraced(function* (kind: keyof typeof ofPath, fails: (call: number) => boolean) {
  const sim = yield* Effect.map(ProviderServer.make({ timeScale: 100 }), ({ url }) => url)
  const models: Array<string> = []
  const { url } = yield* serve((request, response, body) => {
    const { model = "", stream = "" } = ofPath[kind].exec(decodeURIComponent(request.url!.split("?")[0]!))!.groups!
    models.push(model)
    if (fails(models.length)) {
      const text =
        kind === "bedrock" ? { message: "Too many tokens, please wait" } : { error: { status: "RESOURCE_EXHAUSTED" } }
      const headers = kind === "bedrock" ? { "x-amzn-errortype": "ThrottlingException" } : {}
      return void response.writeHead(429, { ...headers, "content-type": "application/json" }).end(JSON.stringify(text))
    }
    const isStream = stream.startsWith("stream") || stream.startsWith("-with")
    const { anthropic_version: _, ...params } = JSON.parse(body) as Record<string, unknown>
    assert.ok(!("model" in params))
    const forwarded = fetch(`${sim}/v1/messages`, {
      method: "POST",
      headers: { "x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json" },
      body: JSON.stringify({ ...params, model: "claude-sonnet-5", stream: isStream })
    })
    return void forwarded.then(async (answer) => {
      const text = await answer.text()
      if (!isStream) return response.writeHead(answer.status, { "content-type": "application/json" }).end(text)
      if (kind === "vertex") return response.writeHead(200, { "content-type": "text/event-stream" }).end(text)
      response.writeHead(200, { "content-type": "application/vnd.amazon.eventstream" })
      const events = text.split("\n").filter((line) => line.startsWith("data: "))
      return response.end(Buffer.concat(events.map((line) => chunkOf(line.slice("data: ".length)))))
    })
  })
  return { models, url }
})

const bedrock = (baseURL: string) =>
  Anthropic.fromClient(
    new AnthropicBedrock({ awsAccessKey: "AKIA", awsSecretKey: "secret", awsRegion: "us-east-1", baseURL }),
    { name: "aws.bedrock" }
  )

const vertex = (baseURL: string) => {
  const authClient = { getRequestHeaders: async () => new Headers({ authorization: "Bearer t" }), projectId: "p" }
  return Anthropic.fromClient(
    new AnthropicVertex({
      region: "us-east5",
      projectId: "p",
      baseURL: `${baseURL}/v1`,
      authClient: authClient as never
    }),
    { name: "gcp.vertex_ai" }
  )
}

const params = {
  model: "claude-sonnet-5",
  max_tokens: 50,
  messages: [{ role: "user" as const, content: "What is a token bucket?" }]
}

/** A client with a place at each cloud, Bedrock first. */
const world = Effect.fnUntraced(function* (bedrockFails: (call: number) => boolean) {
  const [aws, google] = [yield* cloud("bedrock", bedrockFails), yield* cloud("vertex", () => false)]
  const places = [
    {
      name: "bedrock",
      provider: Layer.succeed(LlmProvider, bedrock(aws.url)),
      model: "anthropic.claude-sonnet-5-v1:0",
      accounting: Accounting.bedrockRuntime({ burndown: 10 })
    },
    {
      name: "vertex",
      provider: Layer.succeed(LlmProvider, vertex(google.url)),
      model: "claude-sonnet-5@20260901",
      accounting: Accounting.vertex
    }
  ]
  const live = LlmClient.layerPlaces({ models: { "claude-sonnet-5": places } }).pipe(Layer.provideMerge(Budget.layer()))
  return { aws, google, context: yield* Layer.build(live) }
})

const whole = Effect.map(LlmClient.create(params), LlmClient.text)
const streamed = LlmClient.stream(params).pipe(Stream.map(LlmClient.text), Stream.mkString)

const outcome = Effect.fnUntraced(function* (
  call: Effect.Effect<string, unknown, LlmClient.LlmClient>,
  isThrottled: boolean
) {
  const { aws, context, google } = yield* world(() => isThrottled)
  const text = yield* Effect.provideContext(call, context)
  const { pools } = yield* Effect.provideContext(
    Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
    context
  )
  return { text, bedrock: aws.models, vertex: google.models, pools: Object.keys(pools) }
}, Effect.scoped)

const program = Effect.gen(function* () {
  return {
    whole: yield* outcome(whole, false),
    streamed: yield* outcome(streamed, false),
    wholeMoved: yield* outcome(whole, true),
    streamedMoved: yield* outcome(streamed, true)
  }
})

console.log(JSON.stringify(await Effect.runPromise(program)))
