/** Bodies of requests: bounded in size, and counted while they are in memory. */
import type { IncomingMessage } from "node:http"

/** The bytes in the bodies of all waiting and running requests. */
export interface Memory {
  held: number
}

/** Why a body was not read. */
export type Unread =
  /** It is larger than allowed. */
  | "tooLarge"
  /** There is no room for it beside the other bodies. */
  | "full"

/** The body of one request. */
export class Body {
  private readonly memory: Memory
  private readonly mostHeld: number
  private readonly most: number
  private held = 0
  private isSettled = false

  constructor(memory: Memory, mostHeld: number, most: number) {
    this.memory = memory
    this.mostHeld = mostHeld
    this.most = most
  }

  /** Reads the body, and calls `give` with it, or with the reason why it was not read. */
  read(request: IncomingMessage, give: (body: Buffer | Unread) => void): void {
    const settle = (body: Buffer | Unread): void => {
      if (this.isSettled) return
      this.isSettled = true
      give(body)
    }
    if (Number(request.headers["content-length"] ?? 0) > this.most) return settle("tooLarge")
    const { memory, most } = this
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => {
      if (this.isSettled) return
      this.held += chunk.length
      memory.held += chunk.length
      if (this.held <= most && memory.held <= this.mostHeld) return void chunks.push(chunk)
      request.removeAllListeners("data").pause()
      settle(this.held > most ? "tooLarge" : "full")
    })
    request.on("end", () => settle(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
  }

  /** Releases the memory of the body. */
  release(): void {
    this.isSettled = true
    this.memory.held -= this.held
    this.held = 0
  }
}
