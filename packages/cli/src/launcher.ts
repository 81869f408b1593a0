/**
 * Whether what launched the command still runs. `npm run` starts a shell, which starts the command; when npm is killed, both
 * would stay behind, and with them the port of a server.
 */

/** A process as its system describes it. */
export interface ProcessInfo {
  readonly name: string
  readonly parent: number
}

/** Reads `/proc/PID/stat` of Linux; the name of a process may contain anything. */
export const describedBy = (stat: string): ProcessInfo | undefined => {
  const [, name, parent] = /^\d+ \((.*)\) \S (\d+) /s.exec(stat) ?? []
  return name === undefined ? undefined : { name, parent: Number(parent) }
}

/**
 * Whether the script of a package manager is this command in the foreground. One that is sent to the background, or that
 * starts something else, ends before the command.
 */
export const isForeground = (script: string | undefined): boolean =>
  script !== undefined && /\bfloodgate\b/.test(script) && !/(?<![&>])&(?![&>])|\b(nohup|setsid|disown)\b/.test(script)

const shells = /^(sh|dash|bash|ash|busybox|zsh|ksh)$/

/**
 * Begins to watch the parent of this process and, if that is a shell, the process that started it. What is returned tells
 * whether one of them has ended. `describe` knows nothing of other processes where the system has no `/proc`: there the shell
 * is usually replaced by the command.
 */
export const watch = (parent: () => number, describe: (pid: number) => ProcessInfo | undefined): (() => boolean) => {
  const first = parent()
  const shell = describe(first)
  const above = shell !== undefined && shells.test(shell.name) ? shell.parent : undefined
  return () => parent() !== first || (above !== undefined && describe(first)?.parent !== above)
}
