// An orchestrator that asks how many agents help, starts that many, waits, and asks again until all are done.
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

while (waiting.length > 0) {
  const question = { agents: waiting.length, running: running.size, each: { calls: 4, first: call } }
  const { agents, expiresAfterSeconds, text } = await floodgate.advise(question)
  say(text)
  // With nothing running, one agent starts in any case.
  const next = waiting.splice(0, running.size === 0 ? Math.max(1, agents) : agents)
  next.forEach(start)
  if (next.length > 0) say(`started ${next.join(", ")}`)
  await Promise.race([sleep(1_000 * expiresAfterSeconds), ...running])
}
await Promise.all(running)
say("all 16 agents are done")
