/** The open requests of each key, so that those of a removed key can be ended. */
import type { ServerResponse } from "node:http"
import type { KeyHolder, Keyring } from "./keys.ts"

/** It is mutable. */
export class KeyUsers {
  private readonly open = new Map<string, Set<ServerResponse>>()

  enter({ id }: KeyHolder, response: ServerResponse): void {
    const own = this.open.get(id) ?? new Set()
    own.add(response)
    this.open.set(id, own)
    response.once("close", () => {
      own.delete(response)
      if (own.size === 0 && this.open.get(id) === own) this.open.delete(id)
    })
  }

  /** Breaks off the requests of all keys that a keyring does not have, whether they wait or their answers have begun. */
  keep(keyring: Keyring | undefined): void {
    for (const [id, responses] of this.open) {
      if (keyring?.has(id) === true) continue
      for (const response of responses) response.destroy()
    }
  }
}
