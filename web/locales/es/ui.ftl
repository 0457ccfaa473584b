# Español. Todos los mensajes están también en locales/en/ui.ftl, con el mismo nombre.
# Redacción: sencilla y tranquila, de tú; dice qué hacer; nunca culpa a nadie.

product-name = Asamblea
page-title = { $meeting } · Asamblea
language = Idioma

## Página de inicio

start-sentence = Reuniones cara a cara. Envía un enlace y todos están en la sala.
new-meeting = Nueva reunión
meeting-name-or-link = Nombre o enlace de la reunión
open = Abrir
start-house = Funciona solo en este servidor: sin cuenta y sin enviar nada a nadie más.
name-not-usable = Usa letras, números y guiones, o pega el enlace completo.

## Antes de unirse

lobby-title = ¿Todo listo?
your-name = Tu nombre
your-name-hint = Los demás lo ven. Puedes dejarlo vacío.
join = Unirse
joining = Entrando…
preview-label = La imagen de tu cámara
camera-is-off = Tu cámara está apagada
camera-starting = Tu cámara se está encendiendo
microphone-level = Nivel del micrófono
microphone = Micrófono
camera = Cámara
speaker = Altavoz
device-default = Predeterminado
device-unnamed = { $kind } { $number }
try-again = Intentar de nuevo
can-still-listen = Igual puedes unirte para escuchar.

devices-asking = Tu navegador pregunta si puede usar tu micrófono y tu cámara. Elige «Permitir» ahí.
microphone-denied = El navegador no permite usar el micrófono aquí. Abre los permisos del sitio junto a la dirección, permite el micrófono e intenta de nuevo.
microphone-missing = No se encontró ningún micrófono. Conecta uno e intenta de nuevo.
microphone-busy = Otro programa está usando el micrófono. Ciérralo e intenta de nuevo.
microphone-failed = El micrófono no arrancó. Desconéctalo y vuelve a conectarlo, o elige otro.
camera-denied = El navegador no permite usar la cámara aquí. Abre los permisos del sitio junto a la dirección, permite la cámara e intenta de nuevo.
camera-missing = No se encontró ninguna cámara. Conecta una e intenta de nuevo.
camera-busy = Otro programa está usando la cámara. Ciérralo e intenta de nuevo.
camera-failed = La cámara no arrancó. Desconéctala y vuelve a conectarla, o elige otra.

## En la reunión

mute-microphone = Silenciar micrófono
unmute-microphone = Activar micrófono
turn-off-camera = Apagar cámara
turn-on-camera = Encender cámara
share-screen = Compartir pantalla
stop-sharing = Dejar de compartir
leave = Salir
copy-link = Copiar enlace
link-copied = Enlace copiado
link-local = Solo sirve en esta computadora: el servidor no conoce ninguna dirección por la que otras personas lleguen a él.
link-network = Sirve para otras personas en tu red.
link-certificate = Su navegador avisará del certificado que esta computadora se ha hecho.
copy-link-yourself = Copia este enlace y envíalo a quienes quieras ver.
participants = Participantes
settings = Ajustes
close = Cerrar
meeting-controls = Controles de la reunión
tiles-label = Personas a la vista
guest = Persona invitada
you = Tú
name-you = { $name } (tú)
tile-screen = Pantalla de { $name }
state-muted = Micrófono silenciado
state-unmuted = Micrófono activado
state-camera-off = Cámara apagada
state-camera-on = Cámara encendida
state-speaking = Está hablando
state-sharing = Comparte su pantalla
state-away = Sin conexión
state-away-long = Perdió la conexión. Puede que vuelva.
state-line-weak = Conexión débil
picture-waiting = Esperando la imagen
picture-paused = Imagen en pausa: conexión lenta
picture-paused-short = Imagen en pausa
pin-tile = Fijar { $tile }
unpin-tile = Soltar { $tile }
full-screen = Pantalla completa
tiles-previous = Personas anteriores
tiles-next = Más personas
tiles-page = { $page } de { $pages }
alone = Eres la primera persona aquí. Envía el enlace a quienes quieras ver.
you-are-sharing = Estás compartiendo tu pantalla.
participants-count =
    { $count ->
        [one] Hay { $count } persona aquí
       *[other] Hay { $count } personas aquí
    }
reconnecting = Se perdió la conexión. Reconectando; quédate en esta página.
media-reconnecting = El sonido y la imagen se interrumpieron. Restableciéndolos…
own-line-weak = Tu conexión está débil: puede que las imágenes se vean más pequeñas, la tuya y las demás. El sonido va primero.
own-line-lost = Casi nada pasa por tu conexión en este momento. La reunión seguirá sola cuando mejore.
sound-blocked = Tu navegador está reteniendo el sonido.
turn-on-sound = Activar el sonido

## Avisos

notice-someone-joined = { $name } se unió
notice-someone-left = { $name } salió
notice-camera-lost = La cámara se desconectó. Puedes elegir otra en los ajustes.
notice-microphone-lost = El micrófono se desconectó. Puedes elegir otro en los ajustes.
notice-share-ended = Terminó la pantalla compartida
notice-share-failed = No se pudo compartir la pantalla. Intenta de nuevo o elige otra ventana.
notice-speaking-while-muted = Tu micrófono está silenciado. Presiona M para activarlo.
notice-reconnected = Tienes conexión otra vez
notice-server-refused = El servidor no pudo hacerlo. Intenta de nuevo en un momento.

## Ajustes

settings-devices = Micrófono, cámara y altavoz
settings-keyboard = Teclado
shortcuts-switch = Usar atajos de una tecla
shortcuts-help = Presiona M para el micrófono y V para la cámara, salvo mientras escribes. Escape cierra lo que esté abierto.

## Después de la reunión, o en su lugar

left-title = Saliste de la reunión
left-text = Gracias por estar. El enlace sigue sirviendo si quieres volver.
rejoin = Volver a unirse
start-page = Página de inicio
reload-page = Recargar la página
open-secure-page = Abrir la página segura
problem-meeting-full-title = La reunión está llena
problem-meeting-full-text = Ya están todas las personas que caben. Intenta de nuevo cuando alguien salga.
problem-server-full-title = El servidor está lleno
problem-server-full-text = Ya tiene todas las reuniones que puede. Intenta de nuevo en unos minutos.
problem-bad-name-title = Ninguna reunión puede llamarse así
problem-bad-name-text = Los nombres llevan letras, números, - y{ "\u00A0" }_. Revisa el enlace o crea una reunión nueva.
problem-server-unreachable-title = No se puede llegar al servidor
problem-server-unreachable-text = Revisa tu conexión a la red e intenta de nuevo.
problem-outdated-client-title = Hay una versión más nueva
problem-outdated-client-text = El servidor se actualizó. Recarga la página para tener la versión nueva.
problem-replaced-title = La reunión sigue en otra pestaña
problem-replaced-text = Se abrió de nuevo en otra parte de este navegador. Puedes cerrar esta pestaña o traer la reunión de vuelta aquí.
problem-no-webrtc-title = Este navegador no puede hacer llamadas
problem-no-webrtc-text = No tiene WebRTC o está desactivado. Abre el enlace en un Firefox, Chrome, Edge o Safari actual.
problem-insecure-context-title = Esta página aún no es segura
problem-insecure-context-text = Los navegadores comparten el micrófono y la cámara solo con páginas que empiezan con https. La página segura puede mostrar primero una advertencia sobre el certificado: es normal en una red local.
problem-media-failed-title = El sonido y la imagen no pudieron pasar
problem-media-failed-text = Una red o un cortafuegos entre tú y el servidor los detiene. Intenta de nuevo o usa otra red.
problem-server-stopping-title = El servidor se detuvo
problem-server-stopping-text = Se está reiniciando o apagando. Intenta de nuevo en un minuto.
problem-internal-title = Algo falló de nuestro lado
problem-internal-text = Puede que la reunión siga. Intenta de nuevo.
