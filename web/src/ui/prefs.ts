// What this browser remembers for the person using it: language, name, shortcuts. It never leaves the browser, and
// where storage is refused (private windows, blocked cookies) everything works, only forgetfully.

export type Preference = 'language' | 'name' | 'shortcuts';

export function remembered(key: Preference): string | null {
  try {
    return localStorage.getItem(`asamblea-${key}`);
  } catch {
    return null;
  }
}

export function remember(key: Preference, value: string): void {
  try {
    localStorage.setItem(`asamblea-${key}`, value);
  } catch {
    // Forgetting is all that happens.
  }
}
