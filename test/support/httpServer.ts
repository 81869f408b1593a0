/** A scripted server on a free loopback port that counts its open requests. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"

/** `body` is the whole request body, or "" if the server does not wait for it. */
export type Handler = (request: Http.IncomingMessage, response: Http.ServerResponse, body: string) => void

export interface TestServer {
  readonly url: string
  readonly requests: ReadonlyArray<Http.IncomingMessage>
  /** The number of requests without an answer. */
  readonly open: () => number
  /** Stops accepting connections. */
  readonly close: Effect.Effect<void>
}

/**
 * Connections stay open for Node's default time, or for `keepAliveTimeout` milliseconds. A `hasty` server answers before it
 * has read the request.
 */
export const serve = Effect.fnUntraced(function* (
  handler: Handler,
  { hasty = false, ...options }: Pick<Http.ServerOptions, "keepAliveTimeout"> & { readonly hasty?: boolean } = {}
): Effect.fn.Return<TestServer, never, Scope.Scope> {
  const requests: Array<Http.IncomingMessage> = []
  let open = 0
  const server = yield* Effect.acquireRelease(
    Effect.callback<Http.Server>((resume) => {
      const server = Http.createServer(options, (request, response) => {
        requests.push(request)
        open++
        response.on("close", () => open--)
        if (hasty) return handler(request, response, "")
        let body = ""
        request.on("data", (chunk) => (body += chunk))
        return request.on("end", () => handler(request, response, body))
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    open: () => open,
    close: Effect.promise(() => new Promise((resolve) => server.close(() => resolve())))
  }
})

/** Lets the real event loop process sockets and timers. */
const turn = Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, 1)))

/** Waits in real time until the server has answered every request and the answers have arrived. */
export const quiet = ({ open }: TestServer): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let calm = 0; calm < 3; calm++) {
      yield* turn
      if (open() > 0) calm = -1
    }
  })
