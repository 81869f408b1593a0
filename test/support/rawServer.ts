/** A server that answers each request with given bytes, whatever they are. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"

/** What a server does with a request. */
export interface RawRequest {
  readonly socket: Net.Socket
  /** The request, with its body if that has a length. */
  readonly text: string
  /** How many requests came before it: on its connection, and in all. */
  readonly onConnection: number
  readonly before: number
}

export interface RawServer {
  readonly url: string
  /** The requests, in order. */
  readonly requests: ReadonlyArray<string>
  readonly connections: () => number
}

/** Whether a text is a whole request. */
const isWhole = (text: string): boolean => {
  const end = text.indexOf("\r\n\r\n")
  if (end < 0) return false
  const length = /^content-length: *(\d+)/im.exec(text.slice(0, end))?.[1]
  if (length !== undefined) return text.length - end - 4 >= Number(length)
  return !/^transfer-encoding:/im.test(text.slice(0, end)) || text.endsWith("0\r\n\r\n")
}

/**
 * Serves raw connections on a free loopback port. Texts are in Latin-1, so that each character is a byte. `opened` gets a connection
 * before it has sent anything.
 */
export const serveRaw = (
  answer: (request: RawRequest) => void,
  opened: (socket: Net.Socket) => void = () => {}
): Effect.Effect<RawServer, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<RawServer & { readonly close: () => void }>((resume) => {
        const requests: Array<string> = []
        const sockets = new Set<Net.Socket>()
        let connections = 0
        const server = Net.createServer((socket) => {
          connections++
          sockets.add(socket)
          opened(socket)
          let text = ""
          let onConnection = 0
          socket.on("error", () => {}).on("close", () => sockets.delete(socket))
          socket.on("data", (data) => {
            text += data.toString("latin1")
            if (!isWhole(text)) return
            requests.push(text)
            const request = { socket, text, onConnection: onConnection++, before: requests.length - 1 }
            text = ""
            answer(request)
          })
        })
        server.listen(0, "127.0.0.1", () => {
          const url = `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}`
          const close = (): void => {
            sockets.forEach((socket) => socket.destroy())
            server.close()
          }
          resume(Effect.succeed({ url, requests, connections: () => connections, close }))
        })
      }),
      ({ close }) => Effect.sync(close)
    ),
    (server): RawServer => server
  )

/** A whole answer as bytes. */
export const rawAnswer = (body: string, headers = ""): string =>
  `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n${headers}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
