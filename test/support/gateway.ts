/** A gateway over real HTTP, and clients that control every byte. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import * as Net from "node:net"
import type { Handler } from "./httpServer.ts"

const quick = Retry.make({ base: "5 millis", jitter: "none", attempts: 2 })

/** Waits until a condition holds, or the test times out. */
export const until = <A>(effect: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("5 millis") })

/** Answers a call of any protocol: the answer has the usage where each of them looks for it. */
export const answersAny =
  (input: number, output: number): Handler =>
  (_, response) =>
    void response.writeHead(200, { "content-type": "application/json" }).end(
      JSON.stringify({
        id: "c1",
        model: "m",
        choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
        usage: { prompt_tokens: input, completion_tokens: output, input_tokens: input, output_tokens: output },
        usageMetadata: { promptTokenCount: input, candidatesTokenCount: output }
      })
    )

/** A gateway to one upstream, which a test can close before it ends. It logs nothing. */
export const gatewayTo = Effect.fnUntraced(function* (
  upstream: string,
  options: Gateway.Options = {},
  limits?: Budget.Options["limits"]
) {
  const context = yield* Layer.build(
    Governor.layer({ retry: quick as never }).pipe(
      Layer.provideMerge(Layer.provide(Agents.layer, Budget.layer({ limits }))),
      Layer.provideMerge(Logger.layer([]))
    )
  )
  const scope = yield* Scope.make()
  const gateway = yield* Gateway.make({
    upstreams: { anthropic: upstream, openai: upstream, gemini: upstream },
    drain: "20 millis",
    ...options
  }).pipe(Effect.provideContext(context), Scope.provide(scope))
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => close)
  const headers = options.token === undefined ? {} : { "x-floodgate-token": options.token }
  const open = Effect.promise(async () => {
    const status = await fetch(`${gateway.url}/floodgate/status`, { headers })
    return ((await status.json()) as { readonly open: number }).open
  })
  const { status } = Context.get(context, Budget.TokenBudget)
  const inFlight = Effect.map(status, ({ pools }) => Object.values(pools).reduce((sum, pool) => sum + pool.inFlight, 0))
  return { ...gateway, close, open, inFlight }
})

/** A request as text. */
export const requestOf = (
  method: string,
  path: string,
  headers: Readonly<Record<string, string>> = {},
  body = ""
): string =>
  [
    `${method} ${path} HTTP/1.1`,
    ...Object.entries({
      host: "localhost",
      ...(body === "" ? {} : { "content-length": Buffer.byteLength(body) }),
      ...headers
    }).map(([name, value]) => `${name}: ${value}`),
    "",
    body
  ].join("\r\n")

/** A connection that reads only on demand. */
export interface Dialled {
  readonly socket: Net.Socket
  /** Starts reading. */
  readonly read: () => void
  /** The response, once the connection is closed. */
  readonly response: Promise<string>
  /** What has arrived so far. */
  readonly arrived: () => string
}

/** Sends text to a server without reading the answer. The scope closes the connection. */
export const dial = (
  url: string,
  text: string,
  options: Pick<Net.TcpNetConnectOpts, "allowHalfOpen"> = {}
): Effect.Effect<Dialled, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const chunks: Array<Buffer> = []
      const socket = Net.connect({ port: Number(new URL(url).port), host: "127.0.0.1", ...options })
      const arrived = () => Buffer.concat(chunks).toString()
      const response = new Promise<string>((resolve) => socket.on("close", () => resolve(arrived())))
      socket.on("error", () => {}).write(text)
      return { socket, response, arrived, read: () => void socket.on("data", (chunk) => chunks.push(chunk)) }
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )
