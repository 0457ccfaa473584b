//! What the bridge says to the person who started it, on stdout, in their language. Not a log.

use crate::bridge::StartError;
use std::net::IpAddr;

/// The languages the bridge speaks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Spanish.
    Spanish,
}

impl Language {
    /// The language of the terminal (POSIX: LC_ALL, LC_MESSAGES, LANG).
    pub fn of_environment() -> Self {
        let set = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        Self::of_locale(set.as_deref().unwrap_or_default())
    }

    fn of_locale(locale: &str) -> Self {
        match locale.split(['_', '.', '@']).next() {
            Some("es") => Language::Spanish,
            _ => Language::English,
        }
    }
}

/// Where browsers reach this machine at one of its addresses, without a path.
pub fn origin(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(v4) => format!("https://{v4}:{port}"),
        IpAddr::V6(v6) => format!("https://[{v6}]:{port}"),
    }
}

/// The links to open and what to know about them: first the meeting of this name, from here and from the network, so
/// that whichever link is opened leads into the same one.
pub fn links(
    language: Language,
    port: u16,
    network: &[IpAddr],
    meeting: &str,
    own_certificate: bool,
) -> String {
    let (running, here, there, start, warning, stop) = match language {
        Language::English => (
            "Asamblea is running.",
            "A new meeting, on this computer:       ",
            "The same, for others in your network:  ",
            "Start page:                            ",
            "  Browsers warn about the certificate that this computer made for itself: choose \"Advanced\", then\n  \
             \"Accept the Risk and Continue\" (Firefox) or \"Proceed\" (Chromium).",
            "Stop with Ctrl-C.",
        ),
        Language::Spanish => (
            "Asamblea está en marcha.",
            "Una reunión nueva, en este ordenador:  ",
            "La misma, para otros en tu red:        ",
            "Página de inicio:                      ",
            "  El navegador avisa del certificado que este ordenador se ha hecho: elige «Avanzado» y después\n  \
             «Aceptar el riesgo y continuar» (Firefox) o «Continuar» (Chromium).",
            "Se detiene con Ctrl-C.",
        ),
    };
    let mut text = format!("{running}\n\n  {here} http://localhost:{port}/{meeting}\n");
    for (n, address) in network.iter().enumerate() {
        let label = if n == 0 { there.to_owned() } else { " ".repeat(there.chars().count()) };
        text.push_str(&format!("  {label} {}/{meeting}\n", origin(*address, port)));
    }
    text.push_str(&format!("  {start} http://localhost:{port}/\n"));
    if own_certificate && !network.is_empty() {
        text.push_str(&format!("\n{warning}\n"));
    }
    text.push_str(&format!("\n{stop}\n"));
    text
}

/// Why the bridge did not start and what to do.
pub fn sorry(language: Language, error: &StartError) -> String {
    match (language, error) {
        (Language::English, StartError::PortTaken(port)) => format!(
            "Port {port} is already in use: is Asamblea running already? Stop the other program, or choose another \
             port with --port NUMBER."
        ),
        (Language::Spanish, StartError::PortTaken(port)) => format!(
            "El puerto {port} ya está en uso: ¿está Asamblea ya en marcha? Detén el otro programa o elige otro \
             puerto con --port NÚMERO."
        ),
        (Language::English, StartError::PortForbidden(port)) => format!(
            "This user may not open port {port}. Choose a port from 1024 up with --port NUMBER, or allow it with \
             `setcap cap_net_bind_service=+ep` on the program."
        ),
        (Language::Spanish, StartError::PortForbidden(port)) => format!(
            "Este usuario no puede abrir el puerto {port}. Elige un puerto desde el 1024 con --port NÚMERO, o \
             permítelo con `setcap cap_net_bind_service=+ep` sobre el programa."
        ),
        (Language::English, StartError::ForeignAddress(address)) => format!(
            "{address} is not an address of this computer. Give one that `ip address` shows with --bind ADDRESS, or \
             leave --bind out to listen on all of them."
        ),
        (Language::Spanish, StartError::ForeignAddress(address)) => format!(
            "{address} no es una dirección de este ordenador. Indica una de las que muestra `ip address` con --bind \
             DIRECCIÓN, o deja --bind fuera para escuchar en todas."
        ),
        (Language::English, StartError::UnusableAddress(address)) => format!(
            "No program can listen on {address}. Give another address that `ip address` shows with --bind ADDRESS, \
             or leave --bind out to listen on all of them."
        ),
        (Language::Spanish, StartError::UnusableAddress(address)) => format!(
            "Ningún programa puede escuchar en {address}. Indica otra de las direcciones que muestra `ip address` \
             con --bind DIRECCIÓN, o deja --bind fuera para escuchar en todas."
        ),
        (Language::English, StartError::TooFewFiles) => {
            "Too few open files are allowed. Raise the limit, for instance with `ulimit -n 4096`, and start again."
                .into()
        }
        (Language::Spanish, StartError::TooFewFiles) => {
            "Se permiten muy pocos archivos abiertos. Sube el límite, por ejemplo con `ulimit -n 4096`, y vuelve a \
             empezar."
                .into()
        }
        (Language::English, StartError::Listen(error)) => format!(
            "The port cannot be opened ({error}). See that this user may open sockets, or choose another address or \
             port with --bind and --port."
        ),
        (Language::Spanish, StartError::Listen(error)) => format!(
            "No se puede abrir el puerto ({error}). Mira que este usuario pueda abrir conexiones, o elige otra \
             dirección u otro puerto con --bind y --port."
        ),
        (Language::English, error) => format!("Asamblea cannot start: {error}"),
        (Language::Spanish, error) => format!("Asamblea no puede arrancar: {error}"),
    }
}

/// A name for a meeting that can be said aloud in both languages and cannot be guessed: nine syllables out of
/// fifty are 50 bits.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn speakable_name() -> Result<String, getrandom::Error> {
    const CONSONANTS: &[u8; 10] = b"bdklmnrstv";
    const VOWELS: &[u8; 5] = b"aeiou";
    let mut random = getrandom::u64()?;
    let mut draw = |from: &[u8]| {
        let letter = from[(random % from.len() as u64) as usize];
        random /= from.len() as u64;
        char::from(letter)
    };
    let mut name = String::new();
    for syllable in 0..9 {
        if syllable > 0 && syllable % 3 == 0 {
            name.push('-');
        }
        name.push(draw(CONSONANTS));
        name.push(draw(VOWELS));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_chooses_the_language() {
        for spanish in ["es", "es_MX.UTF-8", "es.UTF-8", "es_ES@euro"] {
            assert_eq!(Language::of_locale(spanish), Language::Spanish, "{spanish}");
        }
        for other in ["", "C.UTF-8", "en_GB.UTF-8", "est_EE"] {
            assert_eq!(Language::of_locale(other), Language::English, "{other}");
        }
    }

    #[test]
    fn every_address_gets_a_link_that_can_be_opened() {
        let network = ["192.0.2.1".parse().expect("v4"), "2001:db8::1".parse().expect("v6")];
        let text = links(Language::Spanish, 8443, &network, "luna", true);
        let opened: Vec<_> = text.split_whitespace().filter(|word| word.starts_with("http")).collect();
        let same =
            ["http://localhost:8443/luna", "https://192.0.2.1:8443/luna", "https://[2001:db8::1]:8443/luna"];
        assert_eq!(opened[..3], same, "one meeting whichever link is taken");
        assert_eq!(opened[3..], ["http://localhost:8443/"]);
        assert!(text.contains("certificado"));
    }

    #[test]
    fn every_way_not_to_get_the_port_is_told_with_the_next_step_in_both_languages() {
        use std::io;
        let bind = Some(IpAddr::from([192, 0, 2, 1]));
        // EADDRINUSE, EACCES, EADDRNOTAVAIL, EINVAL, EMFILE, and one that nothing is known of.
        for (code, next) in
            [(98, "--port"), (13, "--port"), (99, "--bind"), (22, "--bind"), (24, "ulimit"), (5, "--port")]
        {
            let told = [Language::English, Language::Spanish].map(|language| {
                sorry(language, &StartError::of_bind(bind, 443, io::Error::from_raw_os_error(code)))
            });
            for text in &told {
                assert!(text.contains(next) && !text.contains("cannot start"), "{code}: {text}");
                assert!(code == 5 || !text.contains("os error"), "{code}: {text}");
            }
            assert_ne!(told[0], told[1]);
        }
    }

    #[test]
    fn speakable_names_are_meeting_names() {
        let name = speakable_name().expect("random");
        assert_eq!(crate::registry::MeetingName::new(&name).expect("a name").as_str(), name);
        assert_ne!(name, speakable_name().expect("random"));
    }
}
