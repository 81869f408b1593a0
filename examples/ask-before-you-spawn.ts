// An orchestrator that asks how many agents help, keeps that many running until the advice expires, and asks again.
//     npm run -s example examples/ask-before-you-spawn.ts
import * as Floodgate from "floodgate/promise"
import { setTimeout as sleep } from "node:timers/promises"

await using floodgate = Floodgate.create({ limits: { tokens: { perSecond: 30_000, burst: 6_000 } } })

/** An agent makes four calls, one after the other. A provider stands behind `sleep` here. */
const agent = async (name: string): Promise<void> => {
  for (let call = 0; call < 4; call++) {
    await floodgate.run({ model: "my-model", agent: name, inputTokens: 2_800, maxTokens: 200 }, async ({ used }) => {
      await sleep(300)
      used({ inputTokens: 2_800, outputTokens: 200 })
    })
  }
}

const began = performance.now()
const say = (text: string): void => console.log(`${((performance.now() - began) / 1_000).toFixed(1)} s  ${text}`)

const call = { inputTokens: 2_800, outputTokens: 200, duration: "300 millis" as const }
const waiting = Array.from({ length: 16 }, (_, index) => `reviewer-${index + 1}`)
const running = new Set<Promise<void>>()

const start = (name: string): void => {
  const started = agent(name).finally(() => running.delete(started))
  running.add(started)
}

/** Starts agents until this many run. */
const fill = (atOnce: number): void => {
  const next = waiting.splice(0, Math.max(0, atOnce - running.size))
  next.forEach(start)
  if (next.length > 0) say(`started ${next.join(", ")}`)
}

while (waiting.length > 0) {
  const question = { agents: waiting.length, running: running.size, each: { calls: 4, first: call } }
  const { agents, expiresAfterSeconds, text } = await floodgate.advise(question)
  say(text)
  // With nothing running, one agent starts in any case.
  const atOnce = Math.max(1, running.size + agents)
  const expired = sleep(1_000 * expiresAfterSeconds, true)
  // When an agent ends, the next one starts, until the advice expires.
  do fill(atOnce)
  while (waiting.length > 0 && (await Promise.race([expired, ...running])) !== true)
}
await Promise.all(running)
say("all 16 agents are done")
