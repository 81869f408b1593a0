/**
 * The governed fetch beside the bare one: `npm run -s bench -- fetch`. Both use a `fetch` that answers from memory, so the whole
 * difference is ours; medians of nine rounds. Then it measures what remains of streams that are cancelled at random points.
 *
 * `--quick` makes a hundredth of the calls, to check that it runs.
 */
import * as Floodgate from "floodgate/promise"

const isQuick = process.argv.includes("--quick")
const calls = isQuick ? 20 : 4_000
const broken = isQuick ? 100 : 10_000
const rounds = 9

const encoder = new TextEncoder()
const init = {
  method: "POST",
  headers: { authorization: "Bearer a-key-of-some-length", "content-type": "application/json" },
  body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "x".repeat(8_000) }] })
}
const streaming = {
  ...init,
  body: JSON.stringify({ model: "gpt-6", stream: true, messages: [{ role: "user", content: "x".repeat(8_000) }] })
}
const url = "https://api.openai.com/v1/chat/completions"

const whole = JSON.stringify({
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "x".repeat(2_000) }, finish_reason: "stop" }],
  usage: { prompt_tokens: 2_000, completion_tokens: 500 }
})

const chunk = (more: object) => encoder.encode(`data: ${JSON.stringify({ id: "c1", model: "gpt-6", ...more })}\n\n`)
const chunks = [
  ...Array.from({ length: 500 }, (_, n) => chunk({ choices: [{ index: 0, delta: { content: `word ${n}` } }] })),
  chunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  chunk({ choices: [], usage: { prompt_tokens: 2_000, completion_tokens: 500 } }),
  encoder.encode("data: [DONE]\n\n")
]

/** A provider that answers at once. */
const provider: typeof fetch = async (_, init) => {
  if (!String(init?.body).includes('"stream":true')) return new Response(whole)
  let next = 0
  const body = new ReadableStream<Uint8Array>(
    {
      pull: (controller) => {
        const chunk = chunks[next++]
        if (chunk === undefined) controller.close()
        else controller.enqueue(chunk)
      }
    },
    { highWaterMark: 0 }
  )
  return new Response(body, { headers: { "content-type": "text/event-stream" } })
}

const median = (values: ReadonlyArray<number>): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

/** Microseconds of processor time per call, over all threads of this process. */
const timed = async (call: () => Promise<unknown>, calls: number): Promise<number> => {
  const start = process.cpuUsage()
  for (let n = 0; n < calls; n++) await call()
  const { system, user } = process.cpuUsage(start)
  return (system + user) / calls
}

const read = (fetch: typeof globalThis.fetch, init: RequestInit) => async () => {
  const response = await fetch(url, init)
  for await (const _ of response.body!);
}

// These limits never bind. Without any, calls would be spaced until some are learned.
const plenty = { perSecond: 1e12, burst: 1e12 }
const limits = { requests: plenty, inputTokens: plenty, outputTokens: plenty, tokens: plenty }
const floodgate = Floodgate.create({ fetch: provider, limits })

const compare = async (name: string, init: RequestInit, calls: number): Promise<void> => {
  const bare: Array<number> = []
  const governed: Array<number> = []
  // The first ones are compiled while they run.
  for (let round = -2; round < rounds; round++) {
    if (round === 0) {
      bare.length = 0
      governed.length = 0
    }
    bare.push(await timed(read(provider, init), calls))
    governed.push(await timed(read(floodgate.fetch, init), calls))
  }
  const [one, other] = [median(bare), median(governed)]
  console.log(
    `${name}: bare ${one.toFixed(0)} us, governed ${other.toFixed(0)} us, added ${(other - one).toFixed(0)} us`
  )
}

await compare("a whole call", init, calls)
await compare("a stream of 500 events", streaming, Math.ceil(calls / 20))

/** Reads some chunks and cancels. */
const breakOff = async (n: number): Promise<void> => {
  const controller = new AbortController()
  const response = await floodgate.fetch(url, { ...streaming, signal: controller.signal })
  const reader = response.body!.getReader()
  for (let chunk = 0; chunk < n % 5; chunk++) await reader.read()
  if (n % 2 === 0) await reader.cancel()
  else controller.abort()
}

/** The memory in use when nothing is under way. */
const heap = async (): Promise<number> => {
  for (let turn = 0; turn < 20; turn++) {
    await new Promise((resolve) => setImmediate(resolve))
    globalThis.gc?.()
  }
  return process.memoryUsage().heapUsed
}
for (let n = 0; n < 200; n++) await breakOff(n)
const before = await heap()
for (let n = 0; n < broken; n++) await breakOff(n)
const { pools } = await floodgate.status()
const inFlight = Object.values(pools).reduce((sum, { inFlight }) => sum + inFlight, 0)
const kept = ((await heap()) - before) / broken
console.log(`${broken} streams broken off: ${inFlight} in flight, ${kept.toFixed(0)} bytes kept of each`)
await floodgate.dispose()
