/** The HTTP server of the gateway, which limits connections and headers. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { Bounds, monotonic } from "floodgate/internal"

/**
 * The gateway cannot listen on the address.
 *
 * @stability unstable
 * @category errors
 * @since 0.2.0
 */
export class CannotListen extends Schema.TaggedError<CannotListen>("@floodgate/gateway/CannotListen")("CannotListen", {
  host: Schema.String,
  port: Schema.Finite,
  /** The code of the error, such as `EADDRINUSE`. */
  code: Schema.String
}) {
  override get message(): string {
    return `The gateway cannot listen on ${this.host}:${this.port} (${this.code}): choose another host or port`
  }
}

export interface ListenOptions {
  readonly host: string
  readonly port: number
  readonly maxConnections: number
}

/** Longer than clients and load balancers keep idle connections, so that the server never closes one while a request arrives. */
const keepAliveMillis = 120_000

/** How long a client may take to receive an answer from the network. */
const longestTransit = Duration.seconds(5)

/**
 * Ends all connections. When a container stops, data that is still in its network is lost, so connections with a recent answer stay
 * until the client closes its side, which shows that it has received everything.
 */
const hangUp = (server: Http.Server, sockets: ReadonlyMap<Socket, number>, now: () => number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const since = now() - Duration.toMillis(longestTransit)
    const awaited = [...sockets].flatMap(([socket, at]) => (at > since ? [socket] : []))
    for (const socket of awaited) socket.end()
    while (awaited.some((socket) => sockets.has(socket))) yield* Effect.sleep("20 millis")
  }).pipe(
    Effect.timeoutOption(longestTransit),
    Effect.andThen(
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
    )
  )

/** A server that listens. */
export interface Listening {
  readonly server: Http.Server
  readonly url: string
}

/** Listens until the scope closes. */
export const listen = Effect.fnUntraced(function* ({
  host,
  maxConnections,
  port
}: ListenOptions): Effect.fn.Return<Listening, CannotListen, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = monotonic(clock)
  /** The open connections, and when the last answer on each was handed to the network. */
  const sockets = new Map<Socket, number>()
  const started = Effect.callback<Http.Server, CannotListen>((resume) => {
    const server = Http.createServer({
      keepAliveTimeout: keepAliveMillis,
      headersTimeout: Bounds.bounds.headersTime.max,
      requestTimeout: Bounds.bounds.requestTime.max,
      connectionsCheckingInterval: 5_000,
      maxHeaderSize: Bounds.bounds.headerBytes.max,
      noDelay: true
    })
    server.maxConnections = maxConnections
    server.maxHeadersCount = Bounds.bounds.headerLines.max
    server.on("connection", (socket) => {
      sockets.set(socket, -Infinity)
      socket.once("close", () => sockets.delete(socket))
    })
    server.on("request", ({ socket }, response) => {
      response.once("finish", () => sockets.has(socket) && sockets.set(socket, now()))
    })
    server.once("error", (error: NodeJS.ErrnoException) =>
      resume(Effect.fail(new CannotListen({ host, port, code: error.code ?? error.message })))
    )
    server.listen({ host, port, backlog: 4_096 }, () => resume(Effect.succeed(server)))
  })
  const server = yield* Effect.acquireRelease(started, (server) => hangUp(server, sockets, now))
  const { address, family, port: actual } = server.address() as AddressInfo
  return { server, url: `http://${family === "IPv6" ? `[${address}]` : address}:${actual}` }
})

export type Listener = (request: Http.IncomingMessage, response: Http.ServerResponse) => void

/**
 * Answers the requests of a connection one by one, so that the limit on connections also limits open requests and connections to
 * upstreams.
 */
export const oneByOne = (serve: Listener): Listener => {
  const queues = new WeakMap<Socket, { isServing: boolean; readonly waiting: Array<() => void> }>()
  return (request, response) => {
    const { socket } = request
    const queue = queues.get(socket) ?? { isServing: false, waiting: [] }
    const start = (): void => {
      response.once("finish", () => {
        const next = queue.waiting.shift()
        if (next === undefined) queue.isServing = false
        else next()
      })
      serve(request, response)
    }
    if (!queue.isServing) {
      queues.set(socket, queue)
      queue.isServing = true
      start()
    } else if (queue.waiting.length < Bounds.bounds.ahead.max) queue.waiting.push(start)
    else socket.destroy()
  }
}

/** Waits until no request is open, or until the time is over. */
export const drained = (open: () => number, max: Duration.Duration): Effect.Effect<void> =>
  Effect.gen(function* () {
    while (open() > 0) yield* Effect.sleep(Duration.millis(50))
  }).pipe(Effect.timeoutOption(max), Effect.asVoid)
