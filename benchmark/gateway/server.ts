/**
 * A proxy of a benchmark as a process: `node server.ts KIND UPSTREAM`. It prints its address, and answers each message with the
 * processor time that it has used so far. Before a turn it collects, so that none pays for the garbage of another.
 *
 * It is copied into the checkouts of other commits, so it may use public names of all of them, and nothing else.
 */
import { writeSync } from "node:fs"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"

const [kind = "", target = ""] = process.argv.slice(2)

const listen = (server: Http.Server): void => {
  server.keepAliveTimeout = 120_000
  server.listen({ port: 0, host: "127.0.0.1", backlog: 4_096 }, () => {
    console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  })
}

// Each kind loads its own packages alone, or else a proxy would have the memory of all of them.

const httpProxy = async (): Promise<void> => {
  const { createProxyServer } = await import("http-proxy-3")
  const proxy = createProxyServer({ target, agent: new Http.Agent({ keepAlive: true }), changeOrigin: true })
  listen(Http.createServer((request, response) => void proxy.web(request, response)))
}

/** The part of a rival's package that is used here. */
type Rival = { readonly default: (...args: ReadonlyArray<unknown>) => RivalServer }
interface RivalServer {
  readonly register: (plugin: unknown, options: object) => Promise<unknown>
  readonly listen: (options: object) => Promise<string>
}

/** Imports a package of `rivals`, which has its own lock file. */
const rival = (name: string): Promise<Rival> => import(join(import.meta.dirname, "rivals/node_modules", name))

const fastify = async (): Promise<void> => {
  const [{ default: make }, { default: proxy }] = [
    await rival("fastify/fastify.js"),
    await rival("@fastify/http-proxy/index.js")
  ]
  const server = make()
  await server.register(proxy, { upstream: target })
  console.log(await server.listen({ port: 0, host: "127.0.0.1" }))
}

/** Takes a port; the headers of each request name its upstream. */
const portkey = async (): Promise<void> => {
  const free = Http.createServer()
  await new Promise<void>((resolve) => free.listen({ port: 0, host: "127.0.0.1" }, resolve))
  const { port } = free.address() as AddressInfo
  await new Promise((resolve) => free.close(resolve))
  process.argv.push(`--port=${port}`, "--headless")
  // Portkey prints a banner.
  process.stdout.write = () => true
  await rival("@portkey-ai/gateway/build/start-server.js")
  const isUp = async (): Promise<boolean> =>
    fetch(`http://127.0.0.1:${port}/`).then(
      () => true,
      () => false
    )
  while (!(await isUp())) await new Promise((resolve) => setTimeout(resolve, 50))
  writeSync(1, `http://127.0.0.1:${port}\n`)
}

const floodgate = async (): Promise<void> => {
  const [Effect, Layer] = [await import("effect/Effect"), await import("effect/Layer")]
  const [Budget, Governor] = [await import("floodgate/Budget"), await import("floodgate/Governor")]
  const Gateway = await import("@floodgate/gateway")
  // Limits that never bind, to measure the cost of a call without waiting.
  const limits = { requests: { perSecond: 1e6 }, inputTokens: { perSecond: 1e9 }, outputTokens: { perSecond: 1e9 } }
  const live = Gateway.layer({ upstreams: { anthropic: target } }).pipe(
    Layer.provide(Governor.layer()),
    Layer.provide(Budget.layer({ limits })),
    Layer.provide(Gateway.layerEvents)
  )
  const program = Effect.andThen(
    Effect.flatMap(Gateway.Gateway, ({ url }) => Effect.sync(() => console.log(url))),
    Effect.never
  )
  void Effect.runPromise(Effect.provide(program, live))
}

const kinds: Readonly<Record<string, () => unknown>> = {
  "http-proxy-3": httpProxy,
  "@fastify/http-proxy": fastify,
  "@portkey-ai/gateway": portkey,
  floodgate
}
process.on("message", (message) => {
  // Only of young objects: a full collection also discards compiled code.
  if (message === "begin") globalThis.gc?.({ type: "minor" })
  process.send!(process.cpuUsage())
})
process.on("disconnect", () => process.exit())
void kinds[kind]!()
