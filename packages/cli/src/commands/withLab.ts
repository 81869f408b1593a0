/** Loads what needs the lab, which is installed by default and may be left out. */
import * as Optional from "@floodgate/gateway/internal/optional"

/** Loads a module that needs the lab. Without the lab, fails with the line that installs it. */
export const withLab = <A>(use: string, importing: () => Promise<A>) =>
  Optional.load({ use, name: "@floodgate/lab", install: "@floodgate/lab" }, importing)
