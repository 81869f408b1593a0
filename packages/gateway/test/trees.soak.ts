/**
 * Storms of trees: jobs whose agents call through two gateways that share a Redis server, each a process of its own, while connections to
 * Redis are slow and cut, Redis stands still, and gateways are killed. The judge is the provider, which counts what it has executed.
 */
import { assert, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Http from "node:http"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import * as Redis from "../../redis/test/server.ts"
import { message } from "../../../test/support/httpProvider.ts"
import { mulberry } from "../../../test/support/random.ts"
import { sized } from "../../../test/support/size.ts"
import * as Capped from "./cappedGateways.ts"

const bin = resolve(import.meta.dirname, "../../cli/src/bin.ts")
const sleep = (millis: number) => new Promise<void>((done) => setTimeout(done, millis))

/** Each call uses a thousand tokens, and costs almost a cent. It may use four thousand, and cost three. */
const outputTokens = 990
const tokens = 1_000
const dollars = Capped.dollarsOf(1, outputTokens)

/** The caps of jobs, each chosen by a header. All but the first bind after about 30 calls. */
const caps = {
  agents: { agents: 12 },
  atOnce: { atOnce: 12 },
  calls: { calls: 30 },
  tokens: { tokens: 30_000 },
  dollars: { dollars: 0.3 }
}
type Kind = keyof typeof caps
const kinds = Object.keys(caps) as ReadonlyArray<Kind>

const agentsOfJob = 40
const callsOfAgent = 4

/** What the provider has executed for a job. */
interface Executed {
  calls: number
  readonly agents: Set<string>
}

const startProvider = async (random: () => number) => {
  const jobs = new Map<string, Executed>()
  const answer = JSON.stringify(message(tokens - outputTokens, outputTokens, Capped.model))
  const server = Http.createServer((request, response) => {
    const { "x-claude-code-agent-id": agent, "x-claude-code-session-id": session } = request.headers
    const job = jobs.get(String(session)) ?? { calls: 0, agents: new Set() }
    jobs.set(String(session), job)
    job.calls++
    job.agents.add(String(agent))
    request.resume()
    setTimeout(() => response.writeHead(200, { "content-type": "application/json" }).end(answer), 400 * random())
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  const url = `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}`
  return { url, jobs, close: () => void server.close().closeAllConnections() }
}

/** The connection of one gateway to Redis. */
const startLink = async (port: number) => {
  const link = { delay: 0, isCut: false }
  const sockets = new Set<Net.Socket>()
  /** Messages keep their order, although the delay changes. */
  const carry = (from: Net.Socket, to: Net.Socket): void => {
    let last = Promise.resolve()
    from.on("data", (data) => (last = last.then(() => sleep(link.delay)).then(() => void to.write(data))))
    from.on("close", () => void last.then(() => to.destroy()))
    from.on("error", () => {})
    sockets.add(from)
  }
  const server = Net.createServer((client) => {
    if (link.isCut) return void client.destroy()
    const redis = Net.connect(port, "127.0.0.1")
    carry(client, redis)
    carry(redis, client)
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  const cut = (): void => {
    link.isCut = true
    for (const socket of sockets) socket.destroy()
    sockets.clear()
  }
  return {
    link,
    cut,
    url: `redis://127.0.0.1:${(server.address() as Net.AddressInfo).port}`,
    close: () => (cut(), server.close())
  }
}

/** A gateway that can be killed, and started again. */
const startGateway = async (config: string, redis: string) => {
  let child: ChildProcess
  const gateway = { url: "", kill: async () => {}, start: async () => {} }
  gateway.start = async () => {
    const args = ["gateway", "--config", config, "--port", "0", "--redis", redis, "--redis-prefix", "trees"]
    child = spawn(process.execPath, ["--conditions=@floodgate/source", bin, ...args], {
      stdio: ["ignore", "pipe", "ignore"]
    })
    for await (const line of createInterface(child.stdout!)) {
      const [, found] = /listening on (\S+)/.exec(line) ?? []
      if (found === undefined) continue
      gateway.url = found
      child.stdout!.resume()
      return
    }
  }
  gateway.kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, "exit")
    child.kill("SIGKILL")
    await gone
  }
  await gateway.start()
  return gateway
}

interface Stormed {
  readonly kind: Kind
  readonly calls: number
  readonly agents: number
  readonly refused: number
  readonly lost: number
}

/** Plays a storm of a seed: two jobs of each kind. */
const storm = async (seed: number): Promise<ReadonlyArray<Stormed>> => {
  const random = mulberry(seed)
  const folder = mkdtempSync(join(tmpdir(), "floodgate-trees-"))
  const config = join(folder, "gateway.json")
  const redis = await Redis.start()
  const upstream = await startProvider(random)
  const rules = kinds.map((kind) => ({ headers: { "x-kind": kind }, capPerJob: caps[kind] }))
  writeFileSync(
    config,
    JSON.stringify({
      upstreams: { anthropic: upstream.url },
      limits: { requests: { perSecond: 1e6, burst: 1e6 } },
      rules
    })
  )
  const links = await Promise.all([1, 2].map(() => startLink(Number(new URL(redis.url).port))))
  const gateways = await Promise.all(links.map(({ url }) => startGateway(config, url)))
  const ends: Record<string, { refused: number; lost: number }> = {}

  const ask = (kind: Kind, session: string, agent: string): Promise<number> =>
    fetch(`${gateways[Math.floor(2 * random())]!.url}/v1/messages`, {
      method: "POST",
      headers: {
        "x-api-key": "any",
        "x-kind": kind,
        "x-claude-code-session-id": session,
        "x-claude-code-agent-id": agent
      },
      body: JSON.stringify({
        model: Capped.model,
        max_tokens: Capped.mostTokens,
        messages: [{ role: "user", content: "Hello" }]
      })
    }).then(
      (response) =>
        response.text().then(
          () => response.status,
          () => 0
        ),
      () => 0
    )
  /** One agent, whose client sends a call again when the gateway is away, or has no store. */
  const agent = async (kind: Kind, session: string, name: string): Promise<void> => {
    await sleep(4_000 * random())
    for (let call = 0; call < callsOfAgent; call++) {
      let status = 0
      for (let attempt = 0; attempt < 12 && (status === 0 || status >= 429); attempt++) {
        status = await ask(kind, session, name)
        if (status === 0 || status >= 429) await sleep(500)
      }
      if (status === 400) return void ends[session]!.refused++
      if (status !== 200) ends[session]!.lost++
      await sleep(500 * random())
    }
  }

  const ended = new AbortController()
  const faults = async (): Promise<void> => {
    while (!ended.signal.aborted) {
      await sleep(1_500 * random())
      const at = random() < 0.5 ? 0 : 1
      const { cut, link } = links[at]!
      const what = random()
      if (what < 0.35) {
        link.delay = 300 * random()
        await sleep(1_000)
        link.delay = 0
      } else if (what < 0.6) {
        cut()
        await sleep(1_500 * random())
        link.isCut = false
      } else if (what < 0.8) {
        redis.signal("SIGSTOP")
        await sleep(2_500 * random())
        redis.signal("SIGCONT")
      } else {
        await gateways[at]!.kill()
        await gateways[at]!.start()
      }
    }
  }
  try {
    const jobs = [...kinds, ...kinds].map((kind, n) => ({ kind, session: `s${n}` }))
    const playing = faults()
    await Promise.all(
      jobs.flatMap(({ kind, session }) => {
        ends[session] = { refused: 0, lost: 0 }
        return Array.from({ length: agentsOfJob }, (_, n) => agent(kind, session, `a${n}`))
      })
    )
    ended.abort()
    await playing
    return jobs.map(({ kind, session }) => {
      const { agents, calls } = upstream.jobs.get(session) ?? { calls: 0, agents: new Set() }
      return { kind, calls, agents: agents.size, ...ends[session]! }
    })
  } finally {
    ended.abort()
    redis.signal("SIGCONT")
    await Promise.all(gateways.map(({ kill }) => kill()))
    for (const { close } of links) close()
    upstream.close()
    await redis.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}

describe("trees in storms over two gateways", { timeout: 900_000 }, () => {
  it.skipIf(Redis.skipped !== undefined).each(Array.from({ length: sized(2, 12) }, (_, n) => n + 1))(
    "have at most the agents that their cap allows, and never spend more than they may: seed %d",
    async (seed) => {
      const jobs = await storm(seed)
      console.log(JSON.stringify({ seed, jobs }))
      for (const { agents, calls, kind } of jobs) {
        const used = { agents, atOnce: agents, calls, tokens: calls * tokens, dollars: calls * dollars }[kind]
        const [cap] = Object.values(caps[kind])
        assert.isAtMost(used, cap!, `${kind} of seed ${seed}`)
      }
      // Faults delay agents, and lose none of those that the cap allows. What a killed gateway had reserved counts as spent.
      for (const { agents, kind } of jobs) if (kind === "agents") assert.strictEqual(agents, caps.agents.agents)
    }
  )
})
